"""Loading by NVIDIA DALI, `data.loader=dali`: training images are decoded and augmented on a GPU, or in threads."""
