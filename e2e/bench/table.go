package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// table prints the figures as they come: what, measured, its bar, and whether it was reached.
type table struct {
	engine string
	missed []string
}

// figure is a line without a bar.
func (t *table) figure(name, format string, args ...any) {
	t.line("", name, fmt.Sprintf(format, args...), "")
}

// bar is a line with one.
func (t *table) bar(reached bool, bar, name, format string, args ...any) {
	verdict := "PASS"
	if !reached {
		verdict = "MISS"
		t.missed = append(t.missed, t.engine+": "+name)
	}
	t.line(verdict, name, fmt.Sprintf(format, args...), bar)
}

func (t *table) line(verdict, name, measured, bar string) {
	if bar != "" {
		bar = "  [" + bar + "]"
	}
	fmt.Printf("%-4s  %-8s  %-46s %s%s\n", verdict, t.engine, name, measured, bar)
}

// load is what the machine has to do besides.
func (t *table) load() {
	text, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		t.figure("(load of the machine", "%s)", strings.Join(strings.Fields(string(text))[:3], " "))
	}
}

// times are the durations of some runs of the same.
type times []time.Duration

// at is the value that so many hundredths of the runs do not exceed.
func (t times) at(percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

func (t times) String() string {
	return fmt.Sprintf("median %s, best %s, worst %s, %d runs", short(t.at(50)), short(t.at(0)), short(t.at(100)), len(t))
}

func short(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
