//go:build tools

// Package tools pins the stock CRI clients that the tests drive corten-cri with; go.sum holds the digests of all of it.
package tools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/cmd/critest"
)
