"""The slider: widgets for JupyterLab and a web page."""
