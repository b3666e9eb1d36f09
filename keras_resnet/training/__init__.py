"""Training, evaluation and prediction on TensorFlow, under any `tf.distribute` strategy."""
