package provisioner

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// transitions is the one table of what may follow what. A status that follows itself is always allowed. The table is MAAS's
// (node_status.py): clients rely on which calls are refused.
var transitions = map[storage.NodeStatus][]storage.NodeStatus{
	storage.StatusNew:                  {1, 21, 3, 4, 7, 8, 17},
	storage.StatusCommissioning:        {2, 4, 7, 3, 0, 8, 21},
	storage.StatusFailedCommissioning:  {1, 3, 7, 8, 17, 21},
	storage.StatusReady:                {17, 1, 10, 5, 7, 3, 8, 21},
	storage.StatusReserved:             {4, 10, 7, 3, 8, 14, 12, 17, 21},
	storage.StatusAllocated:            {4, 7, 3, 8, 9, 14, 12, 17, 21},
	storage.StatusReleasing:            {0, 10, 5, 6, 4, 8, 3, 11, 15, 13},
	storage.StatusDeploying:            {10, 3, 8, 11, 6, 4, 14, 12},
	storage.StatusFailedDeployment:     {10, 3, 8, 4, 14, 12, 17, 21},
	storage.StatusDeployed:             {10, 3, 8, 4, 14, 12, 17, 21},
	storage.StatusMissing:              {0, 4, 10, 1, 8, 17, 21},
	storage.StatusRetired:              {0, 4, 3, 8, 17, 21},
	storage.StatusBroken:               {1, 4, 14, 12, 17, 21, 6},
	storage.StatusFailedReleasing:      {12, 14, 4, 8, 21},
	storage.StatusDiskErasing:          {8, 14, 15, 4, 12},
	storage.StatusFailedDiskErasing:    {14, 12, 8, 10, 4, 17, 21},
	storage.StatusEnteringRescueMode:   {4, 8, 6, 16, 18, 19},
	storage.StatusFailedEnteringRescue: {8, 17, 19, 21},
	storage.StatusRescueMode:           {8, 19, 21},
	storage.StatusExitingRescueMode:    {0, 8, 2, 4, 5, 10, 11, 6, 3, 7, 13, 15, 16, 18, 20, 22},
	storage.StatusFailedExitingRescue:  {8, 19, 21},
	storage.StatusTesting:              {8, 0, 4, 5, 10, 6, 1, 11, 3, 7, 13, 15, 18, 20, 22},
	storage.StatusFailedTesting:        {1, 8, 3, 17, 21, 4, 6},
}

// A transitional status is one that somebody other than the user must end. Each says who does, how long that may take, and
// what becomes of the machine when it does not happen: no other status has a deadline, and none of these is without.
type transitional struct {
	owner    string                                    // who moves it on
	deadline func(nodeTimeout time.Duration) time.Time // set at the start, as an offset from the zero time
	renew    bool                                      // a sign of life from the machine starts the deadline anew
	recovery storage.NodeStatus                        // where it goes at the deadline
	powerOff bool                                      // and the machine is switched off
}

func timeouts(n int) func(time.Duration) time.Time {
	return func(d time.Duration) time.Time { return time.Time{}.Add(time.Duration(n) * d) }
}

func fixed(d time.Duration) func(time.Duration) time.Time {
	return func(time.Duration) time.Time { return time.Time{}.Add(d) }
}

var transitionals = map[storage.NodeStatus]transitional{
	storage.StatusCommissioning:      {"agent", timeouts(1), true, storage.StatusFailedCommissioning, true},
	storage.StatusTesting:            {"agent", timeouts(1), true, storage.StatusFailedTesting, true},
	storage.StatusDeploying:          {"agent, then cloud-init of the installed system", timeouts(2), true, storage.StatusFailedDeployment, true},
	storage.StatusDiskErasing:        {"agent", timeouts(1), true, storage.StatusFailedDiskErasing, true},
	storage.StatusEnteringRescueMode: {"agent", timeouts(1), true, storage.StatusFailedEnteringRescue, true},
	storage.StatusReleasing:          {"power job", fixed(5 * time.Minute), false, storage.StatusFailedReleasing, false},
	storage.StatusExitingRescueMode:  {"power job", fixed(5 * time.Minute), false, storage.StatusFailedExitingRescue, false},
}

// AllowedTransition tells whether a machine may go from one status to another.
func AllowedTransition(from, to storage.NodeStatus) bool {
	return from == to || slices.Contains(transitions[from], to)
}

// keepsPrevious are the statuses that do not become previous_status: testing and rescue remember what was before them.
func keepsPrevious(s storage.NodeStatus) bool {
	return s >= storage.StatusRescueMode && s <= storage.StatusTesting
}

// transitionOpts says what else changes with the status.
type transitionOpts struct {
	change    func(n *storage.Node) // other columns; the owner too
	chained   bool                  // a second step within one request: previous_status stays what the first step made it
	unchecked bool                  // not by the table: going back after a step that did not begin
	expires   time.Time             // instead of the table's deadline
	newBoot   bool                  // a boot of its own follows: what still runs on the machine loses its credentials now
}

// transition moves a node to another status: checked against the table, guarded against whoever else moves it, with its deadline,
// its event and its revision, all in tx. n must have been read in tx with LockNode. On ErrStale somebody was first and nothing
// happened; n is then unchanged.
//
// This is the only code that writes a status.
func (s *Service) transition(tx *storage.Tx, n *storage.Node, to storage.NodeStatus, o transitionOpts) error {
	from, owner := n.Status, n.OwnerID
	if !o.unchecked && !AllowedTransition(from, to) {
		return Errorf(Conflict, "Invalid transition: %s -> %s.", from, to)
	}
	next := *n
	if o.change != nil {
		o.change(&next)
	}
	next.Status = to
	if to == storage.StatusReady || to == storage.StatusAllocated {
		// A disk that was to be erased is erased before anybody else gets the machine, whatever way leads there.
		if err := diskDebt(&next); err != nil {
			return err
		}
	}
	if from != to {
		if !o.chained && !keepsPrevious(from) {
			next.PreviousStatus = from
		}
		next.StatusChanged = tx.Now()
	}
	if (to == storage.StatusNew || to == storage.StatusReady) && next.NodeType == storage.NodeMachine {
		next.OwnerID = nil
	}
	next.StatusExpires = time.Time{}
	if t, ok := transitionals[to]; ok {
		if next.StatusExpires = o.expires; next.StatusExpires.IsZero() {
			timeout, err := s.nodeTimeout(tx)
			if err != nil {
				return err
			}
			next.StatusExpires = tx.Now().Add(t.deadline(timeout).Sub(time.Time{}))
		}
	}
	rev, err := tx.Revision()
	if err != nil {
		return err
	}
	next.Revision = rev
	if err := tx.UpdateNodeFrom(&next, from, owner); err != nil {
		return err
	}
	if err := s.lendStorage(tx, n.ID, from, to); err != nil {
		return err
	}
	if err := s.returnAddresses(tx, n, from, to); err != nil {
		return err
	}
	if v := verdictOf(from, &next); v != "" {
		if err := tx.EndNodeBoots(n.ID, v); err != nil {
			return err
		}
	}
	if o.newBoot || !sameOwner(owner, next.OwnerID) {
		// The machine's credentials belong to its life under one owner, and to one installation in it: an agent of an older boot
		// must not report the end of work that it did not do.
		if err := tx.DeleteNodeToken(n.ID); err != nil {
			return err
		}
	}
	if from != to {
		text := fmt.Sprintf("From '%s' to '%s'", from, to)
		if to == storage.StatusAllocated && next.OwnerID != nil {
			if a := ActorFrom(tx.Context()); a.User.ID == *next.OwnerID {
				text += " (to " + a.User.Username + ")"
			} else if u, err := tx.User(*next.OwnerID); err == nil {
				text += " (to " + u.Username + ")"
			} else if !errors.Is(err, storage.ErrNotFound) {
				return err
			}
		}
		if err := s.nodeEvent(tx, &next, evNodeChangedStatus, text); err != nil {
			return err
		}
	}
	*n = next
	if !isOnWire(from, to) {
		return nil
	}
	return s.requeryPower(tx, n, requeryDelay)
}

// lendStorage gives whoever gets a machine file systems of their own to change, and takes them back when the machine is free again.
func (s *Service) lendStorage(tx *storage.Tx, nodeID int64, from, to storage.NodeStatus) error {
	switch {
	case from == to:
	case storage.AllocatedStorage(to) && !storage.AllocatedStorage(from): // a Broken machine still has what it had
		return tx.AcquireFilesystems(nodeID)
	case in(to, storage.StatusNew, storage.StatusCommissioning, storage.StatusFailedCommissioning, storage.StatusReady):
		return tx.ReleaseFilesystems(nodeID)
	}
	return nil
}

// isOnWire lists the changes after which the machine switches itself on or off, so that its power state must be asked for again.
func isOnWire(from, to storage.NodeStatus) bool {
	switch from {
	case storage.StatusCommissioning:
		return to == storage.StatusFailedCommissioning || to == storage.StatusNew || to == storage.StatusReady
	case storage.StatusDeploying:
		return to == storage.StatusFailedDeployment || to == storage.StatusDeployed
	case storage.StatusDiskErasing:
		return to == storage.StatusFailedDiskErasing
	case storage.StatusTesting:
		return to != storage.StatusTesting
	}
	return false
}

// renewDeadline gives a machine that showed a sign of life its time again: never less than it had.
func (s *Service) renewDeadline(tx *storage.Tx, n *storage.Node) error {
	n.LastPing = tx.Now()
	if t, ok := transitionals[n.Status]; ok && t.renew {
		timeout, err := s.nodeTimeout(tx)
		if err != nil {
			return err
		}
		if at := tx.Now().Add(timeout); at.After(n.StatusExpires) {
			n.StatusExpires = at
		}
	}
	return tx.UpdateNode(n)
}

func sameOwner(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
