package qemu

import (
	"os/exec"
	"runtime"
)

// The kernel sends the parent-death signal when the thread that forked ends, not the process. So children start from a thread that
// stays.

func lockThread()   { runtime.LockOSThread() }
func unlockThread() { runtime.UnlockOSThread() }

var starter = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for f := range starter {
			f()
		}
	}()
}

// startChild starts c from the thread that never ends.
func startChild(c *exec.Cmd) error {
	done := make(chan error)
	starter <- func() { done <- c.Start() }
	return <-done
}
