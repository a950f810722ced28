"""From a quantized model to the files of other runtimes, each checked by running it."""
