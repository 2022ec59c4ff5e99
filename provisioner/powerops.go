package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// powerUnderWay tells whether an order to switch a node on or off has not ended.
func (s *Service) powerUnderWay(tx *storage.Tx, nodeID int64) (bool, error) {
	jobs, err := tx.Jobs(storage.JobFilter{NodeID: &nodeID, Kind: "power", States: []string{storage.JobReady, storage.JobRunning}})
	for _, j := range jobs {
		var args PowerArgs
		if json.Unmarshal(j.Args, &args) == nil && args.Action != PowerQuery {
			return true, err
		}
	}
	return false, err
}

// PowerResult takes the end of a power job into the life of its machine, in the transaction that finishes the job: the power state, a
// release that waited for the machine to be off, or the failed status of a step that could not begin.
func (s *Service) PowerResult(tx *storage.Tx, job storage.Job, r api.PowerResult) error {
	var args PowerArgs
	if err := json.Unmarshal(job.Args, &args); err != nil {
		return err
	}
	n, err := tx.LockNodeBySystemID(args.SystemID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if args.Action == PowerQuery {
		busy, err := s.powerUnderWay(tx, n.ID)
		if err != nil {
			return err
		}
		if busy {
			// What the BMC said may be from before the order took effect. The order's own result tells; then somebody asks again.
			return s.requeryPower(tx, &n, requeryDelay)
		}
	}
	n.PowerChecked = tx.Now()
	if r.Error != "" {
		return s.powerFailed(tx, &n, args.Action, r.Error)
	}
	switch args.Action {
	case PowerOff:
		n.PowerState = "off" // the driver does not answer without an error before it is
	case PowerOn, PowerCycle:
		n.PowerState = "on"
	default:
		n.PowerState = r.State
	}
	if r.State == "unknown" && args.Action != PowerQuery && !s.queryable(n.PowerType) {
		n.PowerState = "unknown"
	}
	if err := tx.UpdateNode(&n); err != nil {
		return err
	}
	switch {
	case args.Action == PowerOn || args.Action == PowerCycle:
		if err := s.bootStep(tx, &n, stepPowerDone, args.Action); err != nil {
			return err
		}
	case n.PowerState == "off":
		if err := tx.EndNodeBoots(n.ID, "ok: the machine is off"); err != nil {
			return err
		}
	}
	if n.PowerState == "off" {
		switch n.Status {
		case storage.StatusReleasing:
			return s.finishRelease(tx, &n, false)
		case storage.StatusExitingRescueMode:
			if n.PreviousStatus != storage.StatusDeployed {
				return s.exitedRescue(tx, &n)
			}
		}
		if !in(n.Status, storage.StatusCommissioning, storage.StatusDeployed, storage.StatusDeploying, storage.StatusDiskErasing,
			storage.StatusRescueMode, storage.StatusEnteringRescueMode, storage.StatusTesting) {
			return s.releaseAutoAddresses(tx, n.ID)
		}
	}
	if n.PowerState == "on" && n.Status == storage.StatusExitingRescueMode && n.PreviousStatus == storage.StatusDeployed {
		return s.exitedRescue(tx, &n)
	}
	if n.PowerState == "on" && n.Status == storage.StatusReleasing && args.Action == PowerQuery {
		// An older order to switch it off was called off, or somebody switched it on: it must be off to be free.
		return s.powerDown(tx, &n)
	}
	return nil
}

// powerFailed records that the BMC did not do what was ordered. A machine that waits for it fails, with the reason.
func (s *Service) powerFailed(tx *storage.Tx, n *storage.Node, action, reason string) error {
	n.PowerState = "error"
	if err := tx.UpdateNode(n); err != nil {
		return err
	}
	ev := map[string]evType{PowerOn: evPowerOnFailed, PowerOff: evPowerOffFailed, PowerCycle: evPowerCycleFailed, PowerQuery: evPowerQueryFailed}[action]
	if ev.name == "" {
		ev = evPowerQueryFailed
	}
	if err := s.nodeEvent(tx, n, ev, reason); err != nil {
		return err
	}
	switch {
	case action == PowerQuery:
		return nil
	case action == PowerOff && !in(n.Status, storage.StatusReleasing, storage.StatusExitingRescueMode):
		return nil
	}
	return s.fail(tx, n, "The machine could not be switched: "+reason)
}

// QueryPower asks a machine's BMC for its power state and waits for the answer, a minute at most.
func (s *Service) QueryPower(ctx context.Context, systemID string) (string, error) {
	return s.QueryNodePower(ctx, systemID, storage.NodeMachine)
}

// QueryNodePower is QueryPower for a node of some types.
func (s *Service) QueryNodePower(ctx context.Context, systemID string, types ...int64) (string, error) {
	var (
		job    storage.Job
		state  string
		asking bool
	)
	err := s.DB.Write(ctx, func(tx *storage.Tx) error {
		asking = false
		n, err := lockController(tx, systemID, types)
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, n, permView); err != nil {
			return err
		}
		state = n.PowerState
		if !s.queryable(n.PowerType) {
			state = "unknown"
			return nil
		}
		asking = true
		job, err = s.enqueuePower(tx, n, PowerQuery, false)
		return err
	})
	if err != nil || !asking {
		return state, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-ctx.Done():
			return "", Errorf(Unavailable, "Failed to query the power state of node %s: no rack answered within a minute.", systemID)
		case <-time.After(pause):
		}
		var jobState, reason string
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			jobState, reason, err = tx.JobState(job.ID)
			if errors.Is(err, storage.ErrNotFound) {
				jobState, err = storage.JobCancelled, nil
			}
			if err != nil {
				return err
			}
			n, err := tx.Node(systemID)
			state = n.PowerState
			return err
		})
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return "", errNoMachine
		case err != nil && ctx.Err() == nil:
			return "", err
		case jobState == storage.JobFailed:
			return "", Errorf(Unavailable, "Failed to query the power state of node %s: %s", systemID, reason)
		case jobState == storage.JobDone || jobState == storage.JobCancelled:
			return state, nil
		}
	}
}
