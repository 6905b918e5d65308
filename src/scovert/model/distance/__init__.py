"""DistanceEmbedding: positions of samples whose distances reproduce a matrix."""
