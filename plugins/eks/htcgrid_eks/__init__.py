"""htcgrid on Kubernetes: `eks_sidecar` inside a pod, `eks` from outside, and standing grids of such pods."""
