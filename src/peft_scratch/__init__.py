"""peft-scratch: fine-tune T5 on IMDB four ways, from scratch and through the libraries."""

__version__ = "0.1.0"
