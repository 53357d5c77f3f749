"""What people and programs see over HTTP: the API, metrics, health and a small page.

Read in this order: parts (what is needed of the rest), routes (every path, described beside its handler), app (how
requests get there), evidence (files), page (the one HTML page).
"""
