"""What tabs are made of: components, figures, markup, theme."""
