//go:build tools

// Package tools pins the stock CRI client that the tests drive corten-cri with; go.sum holds the digests of all of it.
package tools

import _ "sigs.k8s.io/cri-tools/cmd/crictl"
