"""Routes in the shapes of other products, so that their clients work unmodified. Thin: translate, judge, translate."""
