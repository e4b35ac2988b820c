"""What is agreed about a job's Kubernetes objects: names, labels, ports, paths. Pure; knows no client."""
