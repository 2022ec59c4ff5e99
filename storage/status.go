package storage

import "strconv"

// NodeStatus is the number that MAAS gives a node's status on the wire (maascommon/enums/node.py).
type NodeStatus int64

// The statuses. The numbers are part of the API.
const (
	StatusNew                  NodeStatus = 0
	StatusCommissioning        NodeStatus = 1
	StatusFailedCommissioning  NodeStatus = 2
	StatusMissing              NodeStatus = 3
	StatusReady                NodeStatus = 4
	StatusReserved             NodeStatus = 5
	StatusDeployed             NodeStatus = 6
	StatusRetired              NodeStatus = 7
	StatusBroken               NodeStatus = 8
	StatusDeploying            NodeStatus = 9
	StatusAllocated            NodeStatus = 10
	StatusFailedDeployment     NodeStatus = 11
	StatusReleasing            NodeStatus = 12
	StatusFailedReleasing      NodeStatus = 13
	StatusDiskErasing          NodeStatus = 14
	StatusFailedDiskErasing    NodeStatus = 15
	StatusRescueMode           NodeStatus = 16
	StatusEnteringRescueMode   NodeStatus = 17
	StatusFailedEnteringRescue NodeStatus = 18
	StatusExitingRescueMode    NodeStatus = 19
	StatusFailedExitingRescue  NodeStatus = 20
	StatusTesting              NodeStatus = 21
	StatusFailedTesting        NodeStatus = 22
)

var statusNames = [...]struct{ label, constant, simplified string }{
	StatusNew:                  {"New", "new", "New"},
	StatusCommissioning:        {"Commissioning", "commissioning", "Commissioning"},
	StatusFailedCommissioning:  {"Failed commissioning", "failed_commissioning", "Failed"},
	StatusMissing:              {"Missing", "missing", "Other"},
	StatusReady:                {"Ready", "ready", "Ready"},
	StatusReserved:             {"Reserved", "reserved", "Other"},
	StatusDeployed:             {"Deployed", "deployed", "Deployed"},
	StatusRetired:              {"Retired", "retired", "Other"},
	StatusBroken:               {"Broken", "broken", "Broken"},
	StatusDeploying:            {"Deploying", "deploying", "Deploying"},
	StatusAllocated:            {"Allocated", "allocated", "Allocated"},
	StatusFailedDeployment:     {"Failed deployment", "failed_deployment", "Failed"},
	StatusReleasing:            {"Releasing", "releasing", "Releasing"},
	StatusFailedReleasing:      {"Releasing failed", "failed_releasing", "Failed"},
	StatusDiskErasing:          {"Disk erasing", "disk_erasing", "Releasing"},
	StatusFailedDiskErasing:    {"Failed disk erasing", "failed_disk_erasing", "Failed"},
	StatusRescueMode:           {"Rescue mode", "rescue_mode", "Rescue Mode"},
	StatusEnteringRescueMode:   {"Entering rescue mode", "entering_rescue_mode", "Rescue Mode"},
	StatusFailedEnteringRescue: {"Failed to enter rescue mode", "failed_entering_rescue_mode", "Failed"},
	StatusExitingRescueMode:    {"Exiting rescue mode", "exiting_rescue_mode", "Rescue Mode"},
	StatusFailedExitingRescue:  {"Failed to exit rescue mode", "failed_exiting_rescue_mode", "Failed"},
	StatusTesting:              {"Testing", "testing", "Testing"},
	StatusFailedTesting:        {"Failed testing", "failed_testing", "Failed"},
}

// Valid reports whether s is one of the statuses above.
func (s NodeStatus) Valid() bool { return s >= 0 && int(s) < len(statusNames) }

// String returns the label that the API calls status_name. Label trap: 13 is "Releasing failed".
func (s NodeStatus) String() string {
	if !s.Valid() {
		return "status " + strconv.FormatInt(int64(s), 10)
	}
	return statusNames[s].label
}

// Constant returns the lower-case constant, the spelling of the status= filter.
func (s NodeStatus) Constant() string { return statusNames[s].constant }

// Simplified returns the coarse label of the simple_status= filter.
func (s NodeStatus) Simplified() string { return statusNames[s].simplified }

// ParseNodeStatus finds a status by its lower-case constant, as the status= filter spells it.
func ParseNodeStatus(constant string) (NodeStatus, bool) {
	for i, n := range statusNames {
		if n.constant == constant {
			return NodeStatus(i), true
		}
	}
	return 0, false
}

// The node types of the API.
const (
	NodeMachine    = 0
	NodeDevice     = 1
	NodeRack       = 2
	NodeRegion     = 3
	NodeRegionRack = 4
)
