package sfmctest

import (
	"sync"
	"time"
	"unsafe"

	clocktesting "k8s.io/utils/clock/testing"
)

// LeapingClock is a wall clock that somebody sets while the monotonic clock, and every timer, goes on. The time of the
// fake clock must have a monotonic reading, as that of time.Now has.
type LeapingClock struct {
	*clocktesting.FakeClock
	mu  sync.Mutex
	off time.Duration
}

// Leap sets the wall clock forward, or back.
func (c *LeapingClock) Leap(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += by
}

// Now has the leap in its wall reading alone.
func (c *LeapingClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Leapt(c.FakeClock.Now(), c.off)
}

// Since is by the monotonic clock.
func (c *LeapingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Leapt returns t as it would be had the wall clock been set while the monotonic one went on. The layout of a time with
// a monotonic reading is that of package time: the wall clock's seconds stand above 30 bits of nanoseconds.
func Leapt(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(int64(by/time.Second) << 30) //nolint:gosec // no other way to two clocks
	return t
}
