//go:build schemas

// Package consumers names modules whose files are read, and not compiled: of Envoy Gateway, its CRDs.
package consumers

import _ "github.com/envoyproxy/gateway/api/v1alpha1"
