"""Write a Lambda-style handler once; run it unchanged on a chosen compute plane."""
