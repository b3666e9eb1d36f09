"""Image formats inside the graph, one module each: what a header claims, checked, and the pixels.

    limits   what is refused before anything is decoded
    data     numbers and pieces of the bytes of a file
    jpeg, png, gif, bmp, webp
    exif     how a photo is to be turned

`decoding` tells the formats by their content and calls these.
"""
