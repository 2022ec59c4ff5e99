package provisioner

import (
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

func TestTransitionTable(t *testing.T) {
	allowed := 0
	for from := storage.StatusNew; from.Valid(); from++ {
		if _, ok := transitions[from]; !ok {
			t.Errorf("%v: no way out", from)
		}
		for to := storage.StatusNew; to.Valid(); to++ {
			if AllowedTransition(from, to) {
				allowed++
			}
		}
		tr, temporary := transitionals[from]
		// A status whose label is a present participle is one that somebody must end.
		if doing := doingStatus(from); doing != temporary {
			t.Errorf("%v: transitional %v, in the table %v", from, doing, temporary)
		}
		if !temporary {
			continue
		}
		if tr.owner == "" {
			t.Errorf("%v: nobody moves it on", from)
		}
		if d := tr.deadline(30 * time.Minute).Sub(time.Time{}); d < time.Minute || d > 2*time.Hour {
			t.Errorf("%v: deadline %v", from, d)
		}
		if !AllowedTransition(from, tr.recovery) || tr.recovery == from {
			t.Errorf("%v: recovery to %v is not a transition", from, tr.recovery)
		}
		if _, again := transitionals[tr.recovery]; again {
			t.Errorf("%v: recovers to %v, which does not rest either", from, tr.recovery)
		}
	}
	if allowed != 193 {
		t.Errorf("%d allowed pairs of 529; the table changed", allowed)
	}
	for _, refused := range [][2]storage.NodeStatus{{2, 4}, {13, 17}, {4, 6}, {4, 9}, {10, 6}, {0, 10}, {8, 10}, {14, 6}} {
		if AllowedTransition(refused[0], refused[1]) {
			t.Errorf("%v -> %v is allowed", refused[0], refused[1])
		}
	}
}

func doingStatus(s storage.NodeStatus) bool {
	switch s {
	case storage.StatusCommissioning, storage.StatusDeploying, storage.StatusReleasing, storage.StatusDiskErasing,
		storage.StatusEnteringRescueMode, storage.StatusExitingRescueMode, storage.StatusTesting:
		return true
	}
	return false
}
