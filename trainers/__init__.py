"""Datasets -> models: the joint-loss trainers, co-training, confidence, evaluation."""
