//! What a node measures, named as Prometheus names things.
