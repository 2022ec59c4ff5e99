package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// The levels of events.
const (
	levelDebug   = 10
	levelInfo    = 20
	levelWarning = 30
	levelError   = 40
)

// evType is an event that the life of a machine writes.
type evType struct {
	name  string
	level int64
}

var (
	evNodeChangedStatus   = evType{"NODE_CHANGED_STATUS", levelDebug}
	evReqCommission       = evType{"REQUEST_NODE_START_COMMISSIONING", levelDebug}
	evCommissioning       = evType{"COMMISSIONING", levelInfo}
	evGatheringInfo       = evType{"GATHERING_INFO", levelInfo}
	evReady               = evType{"READY", levelInfo}
	evNew                 = evType{"NEW", levelInfo}
	evFailedCommissioning = evType{"FAILED_COMMISSIONING", levelInfo}
	evTesting             = evType{"TESTING", levelInfo}
	evReqTest             = evType{"REQUEST_NODE_START_TESTING", levelDebug}
	evRunningTest         = evType{"RUNNING_TEST", levelInfo}
	evScriptChanged       = evType{"SCRIPT_RESULT_CHANGED_STATUS", levelDebug}
	evScriptIncomplete    = evType{"SCRIPT_DID_NOT_COMPLETE", levelInfo}
	evFailedTesting       = evType{"FAILED_TESTING", levelInfo}
	evReqOverrideTesting  = evType{"REQUEST_NODE_OVERRIDE_FAILED_TESTING", levelDebug}
	evReqAbortCommission  = evType{"REQUEST_NODE_ABORT_COMMISSIONING", levelDebug}
	evReqAbortTesting     = evType{"REQUEST_NODE_ABORT_TESTING", levelDebug}
	evReqAbortDeployment  = evType{"REQUEST_NODE_ABORT_DEPLOYMENT", levelDebug}
	evReqAbortErase       = evType{"REQUEST_NODE_ABORT_ERASE_DISK", levelDebug}
	evAbortedCommission   = evType{"ABORTED_COMMISSIONING", levelInfo}
	evAbortedTesting      = evType{"ABORTED_TESTING", levelInfo}
	evAbortedDeployment   = evType{"ABORTED_DEPLOYMENT", levelInfo}
	evAbortedErase        = evType{"ABORTED_DISK_ERASING", levelInfo}
	evReqAcquire          = evType{"REQUEST_NODE_ACQUIRE", levelDebug}
	evReqDeploy           = evType{"REQUEST_NODE_START_DEPLOYMENT", levelDebug}
	evDeploying           = evType{"DEPLOYING", levelInfo}
	evConfiguringStorage  = evType{"CONFIGURING_STORAGE", levelInfo}
	evInstallingOS        = evType{"INSTALLING_OS", levelInfo}
	evConfiguringOS       = evType{"CONFIGURING_OS", levelInfo}
	evInstallFinished     = evType{"NODE_INSTALLATION_FINISHED", levelDebug}
	evRebooting           = evType{"REBOOTING", levelInfo}
	evDeployed            = evType{"DEPLOYED", levelInfo}
	evImageDeployed       = evType{"IMAGE_DEPLOYED", levelInfo}
	evReqRelease          = evType{"REQUEST_NODE_RELEASE", levelDebug}
	evReqErase            = evType{"REQUEST_NODE_ERASE_DISK", levelDebug}
	evReleasing           = evType{"RELEASING", levelInfo}
	evReleased            = evType{"RELEASED", levelInfo}
	evDisksErased         = evType{"NODE_DISKS_ERASED", levelInfo}
	evDiskErased          = evType{"NODE_DISK_ERASED", levelInfo}
	evDiskEraseFailed     = evType{"NODE_DISK_ERASE_FAILED", levelError}
	evFailedSystem        = evType{"REQUEST_NODE_MARK_FAILED_SYSTEM", levelError}
	evReqBroken           = evType{"REQUEST_NODE_MARK_BROKEN", levelDebug}
	evReqFixed            = evType{"REQUEST_NODE_MARK_FIXED", levelDebug}
	evReqLock             = evType{"REQUEST_NODE_LOCK", levelDebug}
	evReqUnlock           = evType{"REQUEST_NODE_UNLOCK", levelDebug}
	evReqStart            = evType{"REQUEST_NODE_START", levelDebug}
	evReqStop             = evType{"REQUEST_NODE_STOP", levelDebug}
	evPowerQueryFailed    = evType{"NODE_POWER_QUERY_FAILED", levelWarning}
	evPowerOnFailed       = evType{"NODE_POWER_ON_FAILED", levelError}
	evPowerOffFailed      = evType{"NODE_POWER_OFF_FAILED", levelError}
	evPowerCycleFailed    = evType{"NODE_POWER_CYCLE_FAILED", levelError}
	evReqStartRescue      = evType{"REQUEST_NODE_START_RESCUE_MODE", levelDebug}
	evReqStopRescue       = evType{"REQUEST_NODE_STOP_RESCUE_MODE", levelDebug}
	evEnteringRescue      = evType{"ENTERING_RESCUE_MODE", levelInfo}
	evRescueMode          = evType{"RESCUE_MODE", levelInfo}
	evFailedEnterRescue   = evType{"FAILED_ENTERING_RESCUE_MODE", levelInfo}
	evExitedRescue        = evType{"EXITED_RESCUE_MODE", levelInfo}
	evFailedExitRescue    = evType{"FAILED_EXITING_RESCUE_MODE", levelInfo}
	evScriptResultError   = evType{"SCRIPT_RESULT_ERROR", levelError}
	evStatusEvent         = evType{"NODE_STATUS_EVENT", levelDebug}
	evCommissioningEvent  = evType{"NODE_COMMISSIONING_EVENT", levelDebug}
	evInstallEvent        = evType{"NODE_INSTALL_EVENT", levelDebug}
	evCommissionEventFail = evType{"NODE_COMMISSIONING_EVENT_FAILED", levelError}
	evInstallEventFail    = evType{"NODE_INSTALL_EVENT_FAILED", levelError}
	evStatusEventFail     = evType{"NODE_STATUS_EVENT_FAILED", levelError}
	evPostInstallFail     = evType{"NODE_POST_INSTALL_EVENT_FAILED", levelError}
	evRescueEvent         = evType{"NODE_ENTERING_RESCUE_MODE_EVENT", levelDebug}
	evRescueEventFail     = evType{"NODE_ENTERING_RESCUE_MODE_EVENT_FAILED", levelError}
)

// nodeEvent writes an event of a node, in the name of whoever acts in the transaction's context.
func (s *Service) nodeEvent(tx *storage.Tx, n *storage.Node, t evType, text string) error {
	a := ActorFrom(tx.Context())
	id := n.ID
	return tx.LogEvent(storage.Event{NodeID: &id, NodeHostname: n.Hostname, SystemID: n.SystemID, Type: t.name, Level: t.level,
		Description: text, Username: a.User.Username, UserAgent: a.UserAgent, Endpoint: a.Endpoint})
}

// userEvent writes the event of a user's request: "(<user>)", and the comment behind it.
func (s *Service) userEvent(tx *storage.Tx, n *storage.Node, t evType, comment string) error {
	text := ""
	if a := ActorFrom(tx.Context()); a.User.Username != "" {
		text = "(" + a.User.Username + ")"
	}
	if comment != "" {
		if text != "" {
			text += " - "
		}
		text += comment
	}
	return s.nodeEvent(tx, n, t, text)
}

// nodePerm is what a caller wants to do with a machine.
type nodePerm int

const (
	permView nodePerm = iota
	permEdit
	permLock
	permAdmin
	permAdminRead
)

var errNoMachine = Errorf(NotFound, "No Machine matches the given query.")

func checkPerm(ctx context.Context, n *storage.Node, p nodePerm) error {
	if mayNode(ActorFrom(ctx), n, p) {
		return nil
	}
	if n.Locked && p != permView && p != permAdminRead {
		return Errorf(Forbidden, "The machine %s is locked: unlock it first.", n.SystemID)
	}
	return Errorf(Forbidden, "You do not have permission to do this with the machine %s.", n.SystemID)
}

// lockMachine reads a machine for change and checks what the caller may do with it.
func (s *Service) lockMachine(ctx context.Context, tx *storage.Tx, systemID string, p nodePerm) (*storage.Node, error) {
	n, err := tx.LockNodeBySystemID(systemID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeMachine {
		return nil, errNoMachine
	}
	if err != nil {
		return nil, err
	}
	return &n, checkPerm(ctx, &n, p)
}

// changeMachine runs fn on a machine that the caller may change, in one transaction, and returns the machine as it is then.
func (s *Service) changeMachine(ctx context.Context, systemID string, p nodePerm, fn func(tx *storage.Tx, n *storage.Node) error) (*storage.Bundle, error) {
	var b *storage.Bundle
	err := s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.lockMachine(ctx, tx, systemID, p)
		if err != nil {
			return err
		}
		if err := fn(tx, n); err != nil {
			return err
		}
		b, err = tx.LoadMachine(systemID)
		return err
	})
	return b, err
}

// write is DB.Write with the answer that a user gets when somebody else was first.
func (s *Service) write(ctx context.Context, fn func(tx *storage.Tx) error) error {
	err := s.DB.Write(ctx, fn)
	if errors.Is(err, storage.ErrStale) {
		return &Error{Kind: Conflict, Text: "The machine was changed by somebody else at the same moment; look at it and try again.", Err: err}
	}
	return err
}

// nodeTimeout is the setting node_timeout, in minutes: how long a machine may be silent in a transitional status.
func (s *Service) nodeTimeout(tx *storage.Tx) (time.Duration, error) {
	m, err := s.settingInt(tx, "node_timeout", 30)
	if m < 1 {
		m = 30
	}
	return time.Duration(m) * time.Minute, err
}

func (s *Service) settingInt(tx *storage.Tx, name string, fallback int64) (int64, error) {
	raw, err := tx.Setting(name)
	var v int64
	if errors.Is(err, storage.ErrNotFound) || err == nil && json.Unmarshal(raw, &v) != nil {
		return fallback, nil
	}
	return v, err
}

func (s *Service) settingText(tx *storage.Tx, name, fallback string) (string, error) {
	raw, err := tx.Setting(name)
	var v string
	if errors.Is(err, storage.ErrNotFound) || err == nil && json.Unmarshal(raw, &v) != nil {
		return fallback, nil
	}
	if v == "" {
		v = fallback
	}
	return v, err
}

func (s *Service) settingBool(tx *storage.Tx, name string, fallback bool) (bool, error) {
	raw, err := tx.Setting(name)
	var v bool
	if errors.Is(err, storage.ErrNotFound) || err == nil && json.Unmarshal(raw, &v) != nil {
		return fallback, nil
	}
	return v, err
}

const requeryDelay = 20 * time.Second

// The actions of a power job.
const (
	PowerOn    = "on"
	PowerOff   = "off"
	PowerCycle = "cycle"
	PowerQuery = "query"
)

// PowerArgs are the arguments of a job of kind "power". The region adds the driver and its parameters when a rack claims the job:
// secrets are not in jobs.
type PowerArgs struct {
	SystemID string `json:"system_id"`
	Action   string `json:"action"`
	Soft     bool   `json:"soft,omitempty"` // off: ask the operating system first
}

// queryable tells whether a machine's power state can be asked for.
func (s *Service) queryable(powerType string) bool {
	if powerType == "" || powerType == "manual" {
		return false
	}
	if d, ok := s.Power[powerType]; ok {
		return d.Describe().Queryable
	}
	return true
}

// powerQueue is the queue whose racks can reach the machine's BMC: those of the VLAN it boots from, or any.
func (s *Service) powerQueue(tx *storage.Tx, n *storage.Node) (string, error) {
	if n.BootInterfaceID == nil {
		return "rack", nil
	}
	i, err := tx.Interface(*n.BootInterfaceID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && i.VLANID == nil {
		return "rack", nil
	}
	if err != nil {
		return "", err
	}
	racks, err := tx.RackVLANsOf(*i.VLANID)
	if err != nil || len(racks) == 0 {
		return "rack", err
	}
	return fmt.Sprintf("vlan:%d", *i.VLANID), nil
}

// power orders a power action. What was ordered before and has not ended is called off: the last order counts, and a machine
// that is to be off does not come on by an older job.
func (s *Service) power(tx *storage.Tx, n *storage.Node, action string, soft bool) (storage.Job, error) {
	if _, err := tx.CancelJobs(n.ID, "power"); err != nil {
		return storage.Job{}, err
	}
	if action == PowerOn || action == PowerCycle {
		if err := s.newBoot(tx, n, action); err != nil {
			return storage.Job{}, err
		}
	}
	return s.enqueuePower(tx, n, action, soft)
}

func (s *Service) enqueuePower(tx *storage.Tx, n *storage.Node, action string, soft bool) (storage.Job, error) {
	return s.enqueuePowerAt(tx, n, "power:"+n.SystemID, action, soft, time.Time{})
}

// enqueuePowerAt is for one unfinished job with the key: a second order finds the first.
func (s *Service) enqueuePowerAt(tx *storage.Tx, n *storage.Node, key, action string, soft bool, at time.Time) (storage.Job, error) {
	queue, err := s.powerQueue(tx, n)
	if err != nil {
		return storage.Job{}, err
	}
	args, err := json.Marshal(PowerArgs{SystemID: n.SystemID, Action: action, Soft: soft})
	if err != nil {
		return storage.Job{}, err
	}
	id := n.ID
	return tx.EnqueueJob(storage.Job{Kind: "power", Queue: queue, UniqueKey: &key, Args: args, NodeID: &id, RunAt: at})
}

// powerUp starts a machine for the step that its status asks for: a cycle if it is on, since it must boot anew.
func (s *Service) powerUp(tx *storage.Tx, n *storage.Node) error {
	if n.PowerType == "" {
		return nil
	}
	action := PowerOn
	if n.PowerState == "on" {
		action = PowerCycle
	}
	_, err := s.power(tx, n, action, false)
	return err
}

// powerDown switches a machine off, if the server can.
func (s *Service) powerDown(tx *storage.Tx, n *storage.Node) error {
	if n.PowerType == "" || n.PowerType == "manual" {
		return nil
	}
	_, err := s.power(tx, n, PowerOff, false)
	return err
}

// requeryPower asks for the power state in a while, unless something else is ordered by then. The question has a key of its own: an order that
// is still under way does not swallow it (see PowerResult for when it comes too early).
func (s *Service) requeryPower(tx *storage.Tx, n *storage.Node, in time.Duration) error {
	if !s.queryable(n.PowerType) {
		return nil
	}
	_, err := s.enqueuePowerAt(tx, n, "requery:"+n.SystemID, PowerQuery, false, tx.Now().Add(in))
	return err
}

func in(s storage.NodeStatus, set ...storage.NodeStatus) bool { return slices.Contains(set, s) }
