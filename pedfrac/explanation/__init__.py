"""Explanation: saliency maps, where they point, and whether they can be trusted."""
