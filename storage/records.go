package storage

// The records: one struct a table of migrations/0001_main.sql, one field a column, in the same order. The schema says what
// each column means; here are only the Go types. Times are UTC; a zero time is stored as 0. Addresses are netip.Addr.

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Setting is a row of settings.
type Setting struct {
	Name  string
	Value json.RawMessage // JSON
}

// User is a row of users.
type User struct {
	ID           int64
	Username     string
	Email        string
	LastName     string
	IsSuperuser  bool
	IsActive     bool
	PasswordHash string
	Created      time.Time
	LastLogin    time.Time
	// AccessVersion grows whenever the user's groups change, or what one of them may do.
	AccessVersion int64
}

// APIToken is a row of api_tokens.
type APIToken struct {
	ID          int64
	UserID      int64
	Name        string
	ConsumerKey string
	TokenKey    string
	TokenSecret string
	Created     time.Time
}

// Session is a row of sessions.
type Session struct {
	ID      string // SHA-256 of the cookie, hex
	UserID  int64
	CSRF    string
	Expires time.Time
}

// SSHKey is a row of sshkeys.
type SSHKey struct {
	ID      int64
	UserID  int64
	Key     string
	Source  string
	Created time.Time
}

// IdempotencyKey is a row of idempotency_keys.
type IdempotencyKey struct {
	UserID      int64
	Key         string
	Request     string // method, path and SHA-256 of the body
	Status      int64  // 0 while the first call runs
	ContentType string
	Body        []byte
	Created     time.Time
}

// Zone is a row of zones.
type Zone struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Pool is a row of pools.
type Pool struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Domain is a row of domains.
type Domain struct {
	ID            int64
	Name          string
	TTL           *int64
	Authoritative bool
	IsDefault     bool
	// ForwardDNSServers are address[:port]; only of domains that are not authoritative.
	ForwardDNSServers []string
}

// Tag is a row of tags.
type Tag struct {
	ID         int64
	Name       string
	Definition string
	Comment    string
	KernelOpts string
	Created    time.Time
	Updated    time.Time
}

// Space is a row of spaces.
type Space struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Fabric is a row of fabrics.
type Fabric struct {
	ID          int64
	Name        string
	Description string
	ClassType   *string
	Created     time.Time
	Updated     time.Time
}

// VLAN is a row of vlans.
type VLAN struct {
	ID              int64 // the first is 5001
	FabricID        int64
	VID             int64
	Name            *string // null: the text of vid
	Description     string
	MTU             int64
	DhcpOn          bool
	ExternalDhcp    *string
	PrimaryRackID   *int64 // nodes.id
	SecondaryRackID *int64
	RelayVLANID     *int64
	SpaceID         *int64
	Created         time.Time
	Updated         time.Time
}

// Subnet is a row of subnets.
type Subnet struct {
	ID                        int64
	VLANID                    int64
	Name                      string
	Description               string
	CIDR                      string
	FirstIP                   netip.Addr
	LastIP                    netip.Addr
	GatewayIP                 *string
	DNSServers                []string
	RDNSMode                  int64
	ActiveDiscovery           bool
	AllowDNS                  bool
	AllowProxy                bool
	Managed                   bool
	DisabledBootArchitectures []string
	Created                   time.Time
	Updated                   time.Time
}

// IPRange is a row of ipranges.
type IPRange struct {
	ID       int64
	SubnetID int64
	Type     string // dynamic, reserved
	StartIP  netip.Addr
	EndIP    netip.Addr
	UserID   *int64
	Comment  string
	Created  time.Time
	Updated  time.Time
}

// Node is a machine, a device or a controller, by NodeType.
type Node struct {
	ID               int64
	SystemID         string
	NodeType         int64
	Hostname         string
	Description      string
	DomainID         int64
	ZoneID           int64
	PoolID           *int64 // machines only
	Status           NodeStatus
	PreviousStatus   NodeStatus
	StatusExpires    time.Time // the deadline of a transitional status
	StatusChanged    time.Time
	OwnerID          *int64
	AgentName        string
	Locked           bool
	Architecture     string // amd64/generic
	MinHWEKernel     string
	HWEKernel        string
	Osystem          string
	DistroSeries     string
	CPUCount         int64
	CPUSpeed         int64 // MHz
	Memory           int64 // MiB
	SwapSize         *int64
	NUMA             json.RawMessage // JSON: [{index, cores, memory, hugepages_set}]
	PowerType        string
	PowerParameters  json.RawMessage // JSON; holds secrets
	PowerState       string
	PowerChecked     time.Time
	Netboot          bool
	HardwareUUID     *string
	BIOSBootMethod   *string
	BootInterfaceID  *int64
	BootDiskID       *int64
	BootRackIP       string // the rack address the machine last booted from
	Environment      string // light or full: the ephemeral environment of the current step
	EphemeralDeploy  bool
	EnableHWSync     bool
	Enlisting        bool   // commissioning that ends in New
	CommissionFlags  string // of the current commissioning: enable_ssh, skip_networking, skip_storage; comma separated
	Erase            string // quick, secure, secure-or-quick or full: what the disks owe before Ready
	Error            string
	ErrorDescription string
	ParentID         *int64
	UserData         []byte
	LastPing         time.Time
	Version          string
	LastSeen         time.Time
	CertFingerprint  string
	RackURL          string
	Revision         int64 // the revision of the last change that racks must see
	Created          time.Time
	Updated          time.Time
}

// NodeToken is a row of node_tokens.
type NodeToken struct {
	NodeID      int64
	ConsumerKey string
	TokenKey    string
	TokenSecret string
	Created     time.Time
}

// Interface is a row of interfaces.
type Interface struct {
	ID              int64
	NodeID          int64
	Name            string
	Type            string
	MACAddress      string // lower case, colons
	VLANID          *int64
	Enabled         bool
	Params          json.RawMessage
	Tags            []string
	Vendor          *string
	Product         *string
	FirmwareVersion *string
	LinkConnected   bool
	InterfaceSpeed  int64
	LinkSpeed       int64
	NUMANode        *int64
	SRIOVMaxVF      int64
	Acquired        bool // a bridge that lives until the machine is released
	Created         time.Time
	Updated         time.Time
	MACTyped        string // MACAddress as somebody wrote it; see SpelledMAC
}

// IPAddress is a row of ip_addresses.
type IPAddress struct {
	ID          int64
	InterfaceID *int64
	SubnetID    *int64
	IP          netip.Addr // null: none yet (auto, dhcp) or link_up
	AllocType   int64
	UserID      *int64
	// DefaultGateway: the node's default route of this family goes through this link.
	DefaultGateway bool
	MAC            string // whom a user reserved it for, when that is no node's interface
	Created        time.Time
	Updated        time.Time
}

// Lease is a row of dhcp_leases.
type Lease struct {
	IP       netip.Addr
	MAC      string
	SubnetID int64
	Hostname string
	Expires  time.Time
	Given    time.Time // by the rack's clock: what was given later wins
	Updated  time.Time
}

// BlockDevice is a row of block_devices.
type BlockDevice struct {
	ID              int64
	NodeID          int64
	Name            string
	Type            string // physical, virtual
	Model           *string
	Serial          *string
	IDPath          *string
	UUID            *string
	Size            int64
	BlockSize       int64
	Tags            []string
	FirmwareVersion *string
	NUMANode        *int64
	PartitionTable  string // '', GPT, MBR
	Created         time.Time
	Updated         time.Time
	GroupID         *int64 // of a virtual device: what it is made of
}

// Partition is a row of partitions.
type Partition struct {
	ID            int64
	BlockDeviceID int64
	Number        int64
	UUID          string
	Size          int64
	Bootable      bool
	Flag          string // bios_grub, boot (ESP), prep
	Tags          []string
	Created       time.Time
	Updated       time.Time
}

// Filesystem is a row of filesystems.
type Filesystem struct {
	ID            int64
	NodeID        int64
	BlockDeviceID *int64
	PartitionID   *int64
	Fstype        string
	Label         *string
	UUID          *string
	MountPoint    *string
	MountOptions  *string
	GroupID       *int64 // it is a member of that group
	CacheSetID    *int64 // it holds that cache
	Acquired      bool   // the copy that counts while the node is allocated
}

// CacheSet is a row of cache_sets.
type CacheSet struct {
	ID      int64
	NodeID  int64
	Created time.Time
	Updated time.Time
}

// StorageGroup is a row of storage_groups: devices that make up other devices.
type StorageGroup struct {
	ID         int64
	NodeID     int64
	Type       string // lvm-vg, raid-0, raid-1, raid-5, raid-6, raid-10, bcache, vmfs6
	Name       string
	UUID       string
	CacheMode  string // of a bcache
	CacheSetID *int64
	Created    time.Time
	Updated    time.Time
}

// Script is a row of scripts, with the newest of its texts.
type Script struct {
	ID           int64
	Name         string
	Title        string
	Description  string
	Tags         []string
	Type         int64 // as of script sets
	HardwareType int64
	Parallel     int64
	Timeout      time.Duration // 0: none
	Results      json.RawMessage
	Parameters   json.RawMessage
	Packages     json.RawMessage
	ForHardware  []string
	Destructive  bool
	MayReboot    bool
	Recommission bool
	ApplyNetwork bool // apply_configured_networking
	IsDefault    bool
	Created      time.Time
	Updated      time.Time

	VersionID int64  // the current version
	Content   []byte // its text; nil in lists that do not need it
}

// ScriptVersion is a row of script_versions.
type ScriptVersion struct {
	ID       int64
	ScriptID int64
	Content  []byte
	Comment  *string
	Created  time.Time
}

// ScriptSet is a row of script_sets.
type ScriptSet struct {
	ID        int64
	NodeID    int64
	Type      int64 // 0 commissioning, 1 installation, 2 testing, 3 release, 4 deployment
	Requested []string
	LastPing  time.Time
	Created   time.Time
}

// ScriptResult is a row of script_results.
type ScriptResult struct {
	ID         int64
	SetID      int64
	Name       string
	Instance   string // which device
	ScriptID   *int64
	VersionID  *int64
	Parameters json.RawMessage
	Status     int64
	ExitStatus *int64
	Suppressed bool
	Output     []byte
	Stdout     []byte
	Stderr     []byte
	Result     []byte
	Started    time.Time
	Ended      time.Time
	Created    time.Time
	Updated    time.Time
}

// Event is a row of events.
type Event struct {
	ID           int64
	NodeID       *int64
	NodeHostname string
	SystemID     string
	Type         string // the constant: DEPLOYED
	Level        int64
	Description  string
	Action       string
	Username     string
	UserAgent    string
	Endpoint     string
	Created      time.Time
}

// BootResource is a row of boot_resources.
type BootResource struct {
	ID           int64
	Rtype        int64  // 0 synced, 2 uploaded
	Name         string // os/series; a custom image: custom/name
	Architecture string // amd64/generic
	Extra        json.RawMessage
	Created      time.Time
	Updated      time.Time
}

// BootResourceSet is a row of boot_resource_sets.
type BootResourceSet struct {
	ID         int64
	ResourceID int64
	Version    string
	Label      string
	Created    time.Time
}

// BootResourceFile is a row of boot_resource_files.
type BootResourceFile struct {
	ID       int64
	SetID    int64
	Filename string
	Filetype string // boot-kernel, boot-initrd, squashfs, root-tgz, ...
	SHA256   string
	Size     int64
	Uploaded int64 // bytes received; complete when equal to size and verified
	Complete bool
	Extra    json.RawMessage
	Created  time.Time
}

// Job is a piece of durable work; see package jobs for its life.
type Job struct {
	ID          int64
	Kind        string
	Queue       string
	UniqueKey   *string         // at most one unfinished job has it
	Args        json.RawMessage // JSON without secrets
	State       string          // ready, running, done, failed, cancelled
	RunAt       time.Time
	Attempt     int64 // the fencing number
	MaxAttempts int64
	Worker      string
	LeaseUntil  time.Time
	Result      json.RawMessage
	Error       string
	NodeID      *int64
	Created     time.Time
	Finished    time.Time
}

// RackVLAN is a row of rack_vlans.
type RackVLAN struct {
	RackID    int64
	VLANID    int64
	Interface string
	Address   string
}

// Boot is a row of boots.
type Boot struct {
	ID      int64
	NodeID  *int64
	MAC     string
	Rack    string
	Purpose string
	Steps   json.RawMessage
	Verdict string // '' while it runs
	Started time.Time
	Updated time.Time
}

// UserGroup is a row of user_groups.
type UserGroup struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// GroupEntitlement is a row of group_entitlements.
type GroupEntitlement struct {
	ID          int64
	GroupID     int64
	PoolID      *int64 // nil: everywhere
	Entitlement string
}

// SSLKey is a row of ssl_keys.
type SSLKey struct {
	ID      int64
	UserID  int64
	Key     string // PEM
	Created time.Time
}

// DNSResource is a row of dns_resources.
type DNSResource struct {
	ID         int64
	DomainID   int64
	Name       string // below the domain; @: the domain itself
	AddressTTL *int64
	Created    time.Time
	Updated    time.Time
}

// DNSRecord is a row of dns_records.
type DNSRecord struct {
	ID         int64
	ResourceID int64
	RRType     string // CNAME, MX, NS, SRV, SSHFP, TXT
	RRData     string
	TTL        *int64
	Created    time.Time
	Updated    time.Time
}

// BootSource is a row of boot_sources.
type BootSource struct {
	ID                      int64
	Name                    string
	URL                     string
	Priority                int64
	Enabled                 bool
	KeyringFilename         string
	KeyringData             []byte
	SkipKeyringVerification bool
	Created                 time.Time
	Updated                 time.Time
}

// BootSourceSelection is a row of boot_source_selections.
type BootSourceSelection struct {
	ID        int64
	SourceID  int64
	OS        string
	Release   string
	Arches    []string
	Subarches []string
	Labels    []string
	Created   time.Time
	Updated   time.Time
}

// BootSourceState is a row of boot_source_states.
type BootSourceState struct {
	SourceID int64
	Checked  time.Time
	Error    string
	Offers   json.RawMessage
}

// RackCache is a row of rack_caches.
type RackCache struct {
	RackID   int64
	Contents []string // SHA-256 digests
	Shared   bool     // it reads the region's own store
	Updated  time.Time
}

// PackageRepository is a row of package_repositories.
type PackageRepository struct {
	ID                 int64
	Name               string
	URL                string
	Distributions      []string
	DisabledPockets    []string
	DisabledComponents []string
	DisableSources     bool
	Components         []string
	Arches             []string
	Key                string
	IsDefault          bool // one of Ubuntu's own archives, which cannot be deleted
	Enabled            bool
	Created            time.Time
	Updated            time.Time
}

// LicenseKey is a row of license_keys.
type LicenseKey struct {
	ID           int64
	OSystem      string
	DistroSeries string
	LicenseKey   string
	Created      time.Time
	Updated      time.Time
}

// PreseedTemplate is a row of preseed_templates.
type PreseedTemplate struct {
	ID      int64
	Name    string
	Content string
	Created time.Time
	Updated time.Time
}

// ReservedIP is a row of reserved_ips.
type ReservedIP struct {
	ID       int64
	SubnetID int64
	IP       netip.Addr
	MAC      string // lower case, colons
	Comment  string
	Created  time.Time
	Updated  time.Time
}

// StaticRoute is a row of static_routes.
type StaticRoute struct {
	ID            int64
	SourceID      int64
	DestinationID int64
	GatewayIP     netip.Addr
	Metric        int64
	Created       time.Time
	Updated       time.Time
}

// DHCPSnippet is a row of dhcp_snippets. Without node and subnet it is global.
type DHCPSnippet struct {
	ID          int64
	Name        string
	Description string
	Enabled     bool
	NodeID      *int64
	SubnetID    *int64
	IPRangeID   *int64
	Created     time.Time
	Updated     time.Time
}

// DHCPSnippetValue is a row of dhcp_snippet_values: one version of a snippet's text.
type DHCPSnippetValue struct {
	ID        int64
	SnippetID int64
	Value     string
	Created   time.Time
}

// Neighbour is a row of neighbours.
type Neighbour struct {
	ID        int64
	IP        netip.Addr
	MAC       string
	VLANID    *int64
	RackID    *int64 // who saw it
	Interface string
	Hostname  string
	Created   time.Time
	LastSeen  time.Time
}

// HardwareDevice is a row of node_devices.
type HardwareDevice struct {
	ID            int64
	NodeID        int64
	Bus           int64 // 1 PCIE, 2 USB
	HardwareType  int64
	VendorID      string
	ProductID     string
	VendorName    string
	ProductName   string
	Driver        string
	BusNumber     int64
	DeviceNumber  int64
	PCIAddress    *string
	NUMANode      int64
	InterfaceID   *int64
	BlockDeviceID *int64
	VPD           json.RawMessage
	Created       time.Time
	Updated       time.Time
}

// Notification is a row of notifications.
type Notification struct {
	ID          int64
	Ident       *string
	UserID      *int64
	Users       bool
	Admins      bool
	Message     string
	Context     json.RawMessage
	Category    string
	Dismissable bool
	Created     time.Time
	Updated     time.Time
}

// File is a row of files.
type File struct {
	ID       int64
	UserID   int64
	Filename string
	Content  []byte // nil in lists
	Key      string // who knows it may read the file
	Created  time.Time
	Updated  time.Time
}

// InstallTree is a row of install_trees.
type InstallTree struct {
	ID           int64
	Name         string // os/series
	Architecture string // amd64
	URL          string
	Repositories []string // NAME=URL
	Packages     []string
	Timezone     string
	Language     string
	Keyboard     string
	ResourceID   *int64 // the boot resource with the installer's kernel and initrd
	State        string // waiting, ready, failed
	Error        string
	Created      time.Time
	Updated      time.Time
}
