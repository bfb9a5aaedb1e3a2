"""The process beside the application: takes content, asks the models, answers Allow, Review or Block."""
