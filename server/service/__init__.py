"""The RPCs: translate the request, submit it, translate the answer back."""
