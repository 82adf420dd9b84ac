"""Where flows run: workers, pools, dispatch, logs."""
