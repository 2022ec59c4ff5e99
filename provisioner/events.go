package provisioner

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// The levels of events that lifecycle.go does not need.
const (
	levelAudit    = 0
	levelCritical = 50
)

var levelNames = map[int64]string{levelAudit: "AUDIT", levelDebug: "DEBUG", levelInfo: "INFO", levelWarning: "WARNING", levelError: "ERROR", levelCritical: "CRITICAL"}

// EventLevelName is the name of an event's level: INFO.
func EventLevelName(level int64) string {
	if n, ok := levelNames[level]; ok {
		return n
	}
	return fmt.Sprint(level)
}

// eventTypes describes the event types, with the level they have by themselves.
var eventTypes = map[string]struct {
	description string
	level       int64
}{
	"REQUEST_NODE_START_COMMISSIONING":     {"User starting node commissioning", levelDebug},
	"COMMISSIONING":                        {"Commissioning", levelInfo},
	"GATHERING_INFO":                       {"Gathering information", levelInfo},
	"READY":                                {"Ready", levelInfo},
	"NEW":                                  {"New", levelInfo},
	"FAILED_COMMISSIONING":                 {"Failed commissioning", levelInfo},
	"REQUEST_NODE_ABORT_COMMISSIONING":     {"User aborting node commissioning", levelDebug},
	"REQUEST_NODE_ABORT_TESTING":           {"User aborting node testing", levelDebug},
	"REQUEST_NODE_ABORT_DEPLOYMENT":        {"User aborting deployment", levelDebug},
	"REQUEST_NODE_ABORT_ERASE_DISK":        {"User aborting disk erase", levelDebug},
	"ABORTED_COMMISSIONING":                {"Aborted commissioning", levelInfo},
	"ABORTED_TESTING":                      {"Aborted testing", levelInfo},
	"ABORTED_DEPLOYMENT":                   {"Aborted deployment", levelInfo},
	"ABORTED_DISK_ERASING":                 {"Aborted disk erasing", levelInfo},
	"REQUEST_NODE_START_TESTING":           {"User starting node testing", levelDebug},
	"TESTING":                              {"Testing", levelInfo},
	"RUNNING_TEST":                         {"Running test", levelInfo},
	"FAILED_TESTING":                       {"Failed testing", levelInfo},
	"REQUEST_NODE_OVERRIDE_FAILED_TESTING": {"User overrode 'Failed testing' status", levelDebug},
	"SCRIPT_RESULT_CHANGED_STATUS":         {"Script result", levelDebug},
	"SCRIPT_DID_NOT_COMPLETE":              {"Script", levelInfo},
	"SCRIPT_RESULT_ERROR":                  {"Script result lookup or storage error", levelError},
	"REQUEST_NODE_ACQUIRE":                 {"User acquiring node", levelDebug},
	"REQUEST_NODE_START_DEPLOYMENT":        {"User starting deployment", levelDebug},
	"DEPLOYING":                            {"Deploying", levelInfo},
	"PERFORMING_PXE_BOOT":                  {"Performing PXE boot", levelInfo},
	"LOADING_EPHEMERAL":                    {"Loading ephemeral", levelInfo},
	"CONFIGURING_STORAGE":                  {"Configuring storage", levelInfo},
	"INSTALLING_OS":                        {"Installing OS", levelInfo},
	"CONFIGURING_OS":                       {"Configuring OS", levelInfo},
	"REBOOTING":                            {"Rebooting", levelInfo},
	"DEPLOYED":                             {"Deployed", levelInfo},
	"IMAGE_DEPLOYED":                       {"Image deployed", levelInfo},
	"NODE_INSTALLATION_FINISHED":           {"Installation complete", levelDebug},
	"REQUEST_NODE_RELEASE":                 {"User releasing node", levelDebug},
	"REQUEST_NODE_ERASE_DISK":              {"User erasing disk", levelDebug},
	"RELEASING":                            {"Releasing", levelInfo},
	"RELEASED":                             {"Released", levelInfo},
	"NODE_DISKS_ERASED":                    {"Disks erased", levelInfo},
	"NODE_DISK_ERASED":                     {"Disk erased", levelInfo},
	"NODE_DISK_ERASE_FAILED":               {"Failed to erase disk", levelError},
	"NODE_RELEASE_SCRIPTS_OK":              {"Release scripts completed", levelInfo},
	"REQUEST_NODE_MARK_FAILED":             {"User marking node failed", levelDebug},
	"REQUEST_NODE_MARK_FAILED_SYSTEM":      {"Marking node failed", levelError},
	"REQUEST_NODE_MARK_BROKEN":             {"User marking node broken", levelDebug},
	"REQUEST_NODE_MARK_BROKEN_SYSTEM":      {"Marking node broken", levelError},
	"REQUEST_NODE_MARK_FIXED":              {"User marking node fixed", levelDebug},
	"REQUEST_NODE_MARK_FIXED_SYSTEM":       {"Marking node fixed", levelDebug},
	"REQUEST_NODE_LOCK":                    {"User locking node", levelDebug},
	"REQUEST_NODE_UNLOCK":                  {"User unlocking node", levelDebug},
	"REQUEST_NODE_START":                   {"User powering up node", levelDebug},
	"REQUEST_NODE_STOP":                    {"User powering down node", levelDebug},
	"NODE_POWER_QUERY_FAILED":              {"Failed to query node's BMC", levelWarning},
	"NODE_POWER_ON_STARTING":               {"Powering on", levelInfo},
	"NODE_POWER_OFF_STARTING":              {"Powering off", levelInfo},
	"NODE_POWER_CYCLE_STARTING":            {"Power cycling", levelInfo},
	"NODE_POWER_ON_FAILED":                 {"Failed to power on node", levelError},
	"NODE_POWER_OFF_FAILED":                {"Failed to power off node", levelError},
	"NODE_POWER_CYCLE_FAILED":              {"Failed to cycle power of node", levelError},
	"NODE_POWERED_ON":                      {"Node powered on", levelDebug},
	"NODE_POWERED_OFF":                     {"Node powered off", levelDebug},
	"REQUEST_NODE_START_RESCUE_MODE":       {"User starting rescue mode", levelDebug},
	"REQUEST_NODE_STOP_RESCUE_MODE":        {"User stopping rescue mode", levelDebug},
	"ENTERING_RESCUE_MODE":                 {"Entering rescue mode", levelInfo},
	"RESCUE_MODE":                          {"Rescue mode", levelInfo},
	"EXITED_RESCUE_MODE":                   {"Exited rescue mode", levelInfo},
	"FAILED_EXITING_RESCUE_MODE":           {"Failed exiting rescue mode", levelInfo},
	"FAILED_ENTERING_RESCUE_MODE":          {"Failed entering rescue mode", levelInfo},
	"NODE_PXE_REQUEST":                     {"PXE Request", levelDebug},
	"NODE_TFTP_REQUEST":                    {"TFTP Request", levelDebug},
	"NODE_HTTP_REQUEST":                    {"HTTP Request", levelDebug},
	"NODE_CHANGED_STATUS":                  {"Node changed status", levelDebug},
	"NODE_STATUS_EVENT":                    {"Node status event", levelDebug},
	"NODE_STATUS_EVENT_FAILED":             {"Node status event failed", levelError},
	"NODE_COMMISSIONING_EVENT":             {"Node commissioning", levelDebug},
	"NODE_COMMISSIONING_EVENT_FAILED":      {"Node commissioning failure", levelError},
	"NODE_INSTALL_EVENT":                   {"Node installation", levelDebug},
	"NODE_INSTALL_EVENT_FAILED":            {"Node installation failure", levelError},
	"NODE_POST_INSTALL_EVENT_FAILED":       {"Node post-installation failure", levelError},
	"NODE_ENTERING_RESCUE_MODE_EVENT":      {"Node entering rescue mode", levelDebug},
	"NODE_ENTERING_RESCUE_MODE_EVENT_FAILED": {"Node entering rescue mode failure",
		levelError},
	"NODE_HARDWARE_SYNC_BMC":                   {"Node BMC hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_BLOCK_DEVICE":          {"Node Block Device hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_CPU":                   {"Node CPU hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_INTERFACE":             {"Node Interface hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_MEMORY":                {"Node Memory hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_PCI_DEVICE":            {"Node PCI Device hardware sync state change", levelInfo},
	"NODE_HARDWARE_SYNC_USB_DEVICE":            {"Node USB Device hardware sync state change", levelInfo},
	"AUTHORISATION":                            {"Authorisation", levelAudit},
	"SETTINGS":                                 {"Settings", levelAudit},
	"NODE":                                     {"Node", levelAudit},
	"IMAGES":                                   {"Images", levelAudit},
	"POD":                                      {"Pod", levelAudit},
	"TAG":                                      {"Tag", levelAudit},
	"NETWORKING":                               {"Networking", levelAudit},
	"ZONES":                                    {"Zones", levelAudit},
	"REQUEST_RACK_CONTROLLER_ADD_CHASSIS":      {"Querying chassis and enlisting all machines", levelDebug},
	"RACK_IMPORT_WARNING":                      {"Rack import warning", levelWarning},
	"RACK_IMPORT_ERROR":                        {"Rack import error", levelError},
	"RACK_IMPORT_INFO":                         {"Rack import info", levelInfo},
	"REGION_IMPORT_WARNING":                    {"Region import warning", levelWarning},
	"REGION_IMPORT_ERROR":                      {"Region import error", levelError},
	"REGION_IMPORT_INFO":                       {"Region import info", levelInfo},
	"REQUEST_CONTROLLER_REFRESH":               {"Starting refresh of controller hardware and networking information", levelDebug},
	"DISCOVERY_MAC_ADDRESS_UNKNOWN_TO_NETWORK": {"Unknown MAC address seen", levelInfo},
}

// EventTypeDescription is what an event's type reads as: "Deployed" of DEPLOYED.
func EventTypeDescription(typ string) string {
	if t, ok := eventTypes[typ]; ok {
		return t.description
	}
	return typ
}

// EventLine is the line that a machine's status_message shows of its newest event: the type's description, and the event's behind it.
func EventLine(e storage.Event) string {
	text := EventTypeDescription(e.Type)
	if e.Description != "" {
		text += " - " + e.Description
	}
	return text
}

// event writes an event, of a node or of none, in the name of whoever acts in the transaction's context. Its level is its type's.
func (s *Service) event(tx *storage.Tx, node *storage.Node, typ string, description string) error {
	return s.eventBy(tx, ActorFrom(tx.Context()), node, typ, description)
}

func (s *Service) eventBy(tx *storage.Tx, a Actor, node *storage.Node, typ, description string) error {
	level := int64(levelInfo)
	if t, ok := eventTypes[typ]; ok {
		level = t.level
	}
	e := storage.Event{Type: typ, Level: level, Description: description, Username: a.User.Username, UserAgent: a.UserAgent, Endpoint: a.Endpoint}
	if node != nil {
		id := node.ID
		e.NodeID, e.NodeHostname, e.SystemID = &id, node.Hostname, node.SystemID
	}
	return tx.LogEvent(e)
}

// audit writes an audit event: who did what.
func (s *Service) audit(tx *storage.Tx, a Actor, typ, format string, args ...any) error {
	return s.eventBy(tx, a, nil, typ, fmt.Sprintf(format, args...))
}

// EventQuery asks for a page of events. Empty lists do not narrow.
type EventQuery struct {
	SystemIDs  []string
	Hostnames  []string
	MACs       []string
	Zones      []string
	Domains    []string
	Pools      []string
	AgentNames []string
	Owners     []string
	Level      string // "": INFO
	Limit      *int64
	Before     *int64
	After      *int64
}

// Events answers a page of events, the newest first.
func (s *Service) Events(ctx context.Context, q EventQuery) ([]storage.Event, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	f := storage.EventFilter{SystemIDs: some(q.SystemIDs), Hostnames: some(q.Hostnames), Zones: some(q.Zones), Domains: some(q.Domains),
		Pools: some(q.Pools), AgentNames: some(q.AgentNames), Owners: some(q.Owners), Limit: 100}
	var bad []string
	for _, m := range q.MACs {
		mac, err := net.ParseMAC(m)
		if err != nil || len(mac) != 6 {
			bad = append(bad, m)
			continue
		}
		f.MACs = append(f.MACs, mac.String())
	}
	if len(bad) > 0 {
		return nil, Errorf(Invalid, "Invalid MAC address(es): %s", strings.Join(bad, ", "))
	}
	if q.Limit != nil {
		if *q.Limit > 1000 {
			return nil, Errorf(Invalid, "Requested number of events %d is greater than limit: 1000", *q.Limit)
		}
		f.Limit = int(max(*q.Limit, 1))
	}
	if q.Before != nil && q.After != nil {
		return nil, Errorf(Invalid, "There is undetermined behaviour when both `after` and `before` are specified.")
	}
	f.Before, f.After = q.Before, q.After
	switch level := q.Level; level {
	case "", "INFO":
		f.MinLevel = levelInfo
	case "AUDIT":
		zero := int64(levelAudit)
		f.Level = &zero
	default:
		found := false
		for n, name := range levelNames {
			if name == level {
				f.MinLevel, found = n, true
			}
		}
		if !found {
			return nil, Errorf(Invalid, "Unrecognised log level: %s", level)
		}
	}
	f.Seen = a.sees()
	if !a.Admin {
		f.AuditOf = &a.User.Username
	}
	var events []storage.Event
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { events, err = tx.Events(f); return err })
	return events, err
}

// some makes a set for a filter: none when empty.
func some(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}
