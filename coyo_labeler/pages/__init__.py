"""What the HTML pages of several stages share: no scripts, no remote requests, light and dark.

`environment`  the templates of a package, with the style sheet page.css and the filters for numbers
"""
