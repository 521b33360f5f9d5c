-- Run once by the postgres image, when its volume is new: MLflow keeps a database of its own.
CREATE DATABASE mlflow;
