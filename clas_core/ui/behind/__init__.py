"""What stands behind the page. Nothing here knows Gradio."""
