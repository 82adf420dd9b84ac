"""The pixels of one image: decoding, markers, letterbox."""
