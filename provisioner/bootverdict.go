package provisioner

import (
	"errors"
	"fmt"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// A boot ends with a verdict: "ok: " and what it came to, or "failed: " and why. The rack sees how a boot goes on; whether it did what it was for is
// known here, by the machine's status.

// The steps that the region itself puts on a boot's timeline.
const (
	stepPowerOrder = "power-order" // a machine is to be switched on or cycled: what follows is a new boot
	stepPowerDone  = "power-done"  // the BMC has done it
	stepWatchdog   = "watchdog"    // no sign came: it is power-cycled once more
)

// verdictOf is how a boot ended whose machine goes from one status to another; empty: it goes on, or there was none.
func verdictOf(from storage.NodeStatus, next *storage.Node) string {
	to := next.Status
	t, moving := transitionals[from]
	if !moving || !t.renew || from == to {
		return ""
	}
	if to == t.recovery {
		return "failed: " + clip(next.ErrorDescription)
	}
	good := map[storage.NodeStatus]string{storage.StatusCommissioning: "commissioned", storage.StatusTesting: "tested", storage.StatusDeploying: "deployed",
		storage.StatusDiskErasing: "disks erased", storage.StatusEnteringRescueMode: "in rescue mode"}[from]
	switch {
	case from == storage.StatusCommissioning && to == storage.StatusTesting:
		return "" // the same boot goes on into tests
	case from == storage.StatusDeploying && to != storage.StatusDeployed, from == storage.StatusDiskErasing && to != storage.StatusReleasing,
		from == storage.StatusEnteringRescueMode && to != storage.StatusRescueMode, to == storage.StatusBroken:
		return fmt.Sprintf("failed: %s was broken off, the machine is %s", from, to)
	case from == storage.StatusDeploying && next.EphemeralDeploy:
		good = "deployed to memory"
	}
	return "ok: " + good
}

// bootMAC is the address that a machine boots from, as far as is known; empty: it has no card.
func bootMAC(tx *storage.Tx, n *storage.Node) (string, error) {
	nics, err := tx.InterfacesOf([]int64{n.ID})
	if err != nil {
		return "", err
	}
	first := ""
	for _, i := range nics {
		switch {
		case i.Type != nicPhysical:
		case n.BootInterfaceID != nil && *n.BootInterfaceID == i.ID:
			return i.MACAddress, nil
		case first == "":
			first = i.MACAddress
		}
	}
	return first, nil
}

// bootStep puts a step of the region's on the timeline of a machine's boot.
func (s *Service) bootStep(tx *storage.Tx, n *storage.Node, step, detail string) error {
	mac, err := bootMAC(tx, n)
	if err != nil || mac == "" {
		return err
	}
	_, err = tx.AddBootSteps(mac, &n.ID, "", "", bootGap, storage.BootStep{At: tx.Now(), Step: step, Detail: detail})
	return err
}

// newBoot begins the timeline of a boot that is ordered. One that still runs ends here.
func (s *Service) newBoot(tx *storage.Tx, n *storage.Node, action string) error {
	if err := tx.EndNodeBoots(n.ID, "failed: ended by the order to power "+action); err != nil {
		return err
	}
	return s.bootStep(tx, n, stepPowerOrder, action)
}

// evPowerCycling says that the region cycles the power of a machine by itself: the watchdog's memory, too.
var evPowerCycling = evType{"NODE_POWER_CYCLE_STARTING", levelInfo}

// watched are the statuses of machines that must boot from the network. One whose network boot missed the server may start its old disk, and
// nobody would know.
var watched = []storage.NodeStatus{storage.StatusCommissioning, storage.StatusDeploying, storage.StatusDiskErasing, storage.StatusEnteringRescueMode,
	storage.StatusTesting}

// silence is how long a machine may take from power on to its first request, and from there to that for what to boot: large ones test their memory
// first, and load slowly.
func silence(nodeTimeout time.Duration) time.Duration { return min(10*time.Minute, nodeTimeout/3) }

// watchdogText says why a machine is cycled.
func watchdogText(d time.Duration) string {
	return fmt.Sprintf("No sign of the machine for %s: its network boot may have missed the server. Its power is cycled once.", d)
}

// watch power-cycles a machine that was switched on and gave no sign, once in a status.
func (s *Service) watch(tx *storage.Tx, id int64) error {
	n, err := tx.LockNode(id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !in(n.Status, watched...) || !n.Netboot || !n.LastPing.Before(n.StatusChanged) || !s.queryable(n.PowerType) {
		return nil
	}
	timeout, err := s.nodeTimeout(tx)
	if err != nil {
		return err
	}
	grace := silence(timeout)
	silent, err := s.silentSince(tx, &n, tx.Now().Add(-grace))
	if err != nil || !silent {
		return err
	}
	busy, err := s.powerUnderWay(tx, n.ID)
	if err != nil || busy {
		return err
	}
	text := watchdogText(grace)
	if err := s.bootStep(tx, &n, stepWatchdog, text); err != nil {
		return err
	}
	if err := tx.EndNodeBoots(n.ID, "failed: "+text); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, &n, evPowerCycling, text); err != nil {
		return err
	}
	_, err = s.power(tx, &n, PowerCycle, false)
	return err
}

// silentSince tells whether a machine's power was switched on before a time, and no rack saw it since then.
func (s *Service) silentSince(tx *storage.Tx, n *storage.Node, before time.Time) (bool, error) {
	boots, err := tx.Boots(n.ID, 8)
	if err != nil {
		return false, err
	}
	var ordered, done, seen time.Time
	for _, b := range boots {
		steps, err := b.Timeline()
		if err != nil {
			return false, err
		}
		for _, st := range steps {
			switch {
			case st.Step == stepPowerOrder:
				ordered = later(ordered, st.At)
			case st.Step == stepPowerDone:
				done = later(done, st.At)
			case st.Step != stepWatchdog:
				seen = later(seen, st.At)
			}
		}
	}
	switch {
	case done.IsZero() || done.Before(ordered) || done.After(before):
		return false, nil // it is not on yet, as far as is known, or not for long
	case ordered.Before(n.StatusChanged):
		return false, nil
	}
	// One that got an address and never asked what to boot is as lost as one that nobody saw.
	return seen.Before(before), nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
