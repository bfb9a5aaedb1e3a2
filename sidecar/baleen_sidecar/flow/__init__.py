"""Pure laws of waiting and trying again. Time and chance come in as arguments."""
