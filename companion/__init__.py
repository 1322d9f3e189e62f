"""The book's code: it joins recorded runs with what the paper prints, judges, and draws the pages.

It runs from the checkout and is no part of the wheel. It imports ``sastc``, which never imports it.
"""
