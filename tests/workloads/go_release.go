// A Go release build: recursion, interfaces, a sort with a comparison that burns, goroutines, garbage to collect.
//
//	go_release SECONDS
package main

import (
	"os"
	"sort"
	"strconv"
	"time"
)

func burn(x uint64, rounds int) uint64 {
	for i := 0; i < rounds; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

//go:noinline
func level(x uint64, left int) uint64 {
	if left > 0 {
		x = level(x+1, left-1)
	}
	return burn(x, 100)
}

//go:noinline
func sorted(seed uint64) uint64 {
	v := make([]uint64, 300)
	for i := range v {
		v[i] = burn(uint64(i)^seed, 3)
	}
	sort.Slice(v, func(i, j int) bool { return burn(v[i], 50) < burn(v[j], 50) })
	return v[0]
}

func main() {
	seconds := 0.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	start := time.Now()
	inTime := func() bool { return seconds <= 0 || time.Since(start).Seconds() < seconds }
	done := make(chan uint64)
	go func() {
		x := uint64(1)
		for inTime() {
			x = level(x, 15)
		}
		done <- x
	}()
	x := uint64(1)
	for inTime() {
		x = level(x, 15) ^ sorted(x)
	}
	if <-done^x == 0 {
		os.Exit(1)
	}
}
