"""Pages: the report, model card, checklists and plots, all made from one typed result."""
