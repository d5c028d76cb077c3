//go:build tools

// Package tools pins the stock control plane that the tests run corten-netd against; go.sum holds the digests of all
// of it.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
)
