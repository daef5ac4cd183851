"""The Gradio page: one file a tab, the shared controls, three small components, the theme."""
