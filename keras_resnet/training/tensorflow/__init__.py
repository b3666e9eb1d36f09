"""The TensorFlow engine: what knows `tf.distribute`."""
