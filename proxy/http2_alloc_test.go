//go:build !race

package proxy_test

import "testing"

// In steady state a gRPC call costs the data path no allocation. What is counted here is the application's: its
// HPACK decoder makes two strings each of the request's id and of its traceparent, which differ every time.
func TestGRPCAllocations(t *testing.T) {
	c := benchShop(t)
	benchCalls(t, c, 8, 2000)
	each := testing.AllocsPerRun(10, func() { benchCalls(t, c, 8, 1000) }) / 1000
	if each > 4.5 {
		t.Fatalf("%.2f allocations per call, caller and application included", each)
	}
}
