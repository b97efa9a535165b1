"""Networks: encoders, the fusion of both scales, decoders and heads. Tensors in, tensors out."""
