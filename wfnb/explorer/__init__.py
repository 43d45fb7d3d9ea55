"""The explorer: widgets for JupyterLab and a web page that show a network forget a class.

``network.Explorer`` shows one network, ``page.Page`` chooses among finished runs, ``app.serve`` serves it.
"""
