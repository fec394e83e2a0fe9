raise RuntimeError("the model is missing")
