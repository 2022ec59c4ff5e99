package api

import "time"

// The rack link: what a rack controller and the region say to each other, below /rack/v1/ (openapi/rack.yaml documents it). The
// rack always asks; the region's certificate and the rack's client certificate authenticate both. All bodies are JSON.

// The paths of the link.
const (
	RackEnrolPath    = "/rack/v1/enrol"
	RackHelloPath    = "/rack/v1/hello"
	RackSnapshotPath = "/rack/v1/snapshot"
	RackClaimPath    = "/rack/v1/jobs/claim"
	RackJobsPath     = "/rack/v1/jobs/" // {id}/heartbeat, {id}/result
	RackReportsPath  = "/rack/v1/reports"
	RackContentPath  = "/rack/v1/content/" // {sha256}
	RackCachePath    = "/rack/v1/cache"
)

// RackEnrol asks to become a rack: once, with the shared secret and a certificate request. The region answers with a certificate.
type RackEnrol struct {
	Secret string `json:"secret"`
	// CSR is a PKCS #10 certificate request in PEM. The private key stays on the rack.
	CSR   string    `json:"csr"`
	Hello RackHello `json:"hello"`
}

// RackEnrolled is the answer: the rack's identity.
type RackEnrolled struct {
	SystemID    string `json:"system_id"`
	Certificate string `json:"certificate"` // PEM
	CA          string `json:"ca"`          // PEM: what the region's certificate is verified with from now on
}

// RackHello says what the rack is, after each start and whenever it changes. The region finds the VLANs that it serves by
// its addresses.
type RackHello struct {
	Hostname     string          `json:"hostname"`
	Architecture string          `json:"architecture"` // amd64
	Version      string          `json:"version"`
	URL          string          `json:"url,omitempty"` // where machines reach its HTTP server
	Interfaces   []RackInterface `json:"interfaces"`
}

// RackInterface is a network interface of the rack.
type RackInterface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses"` // CIDR form: 10.0.0.2/24
}

// RackClaim asks for work. The answer waits up to WaitSeconds for some.
type RackClaim struct {
	Limit       int `json:"limit"`
	WaitSeconds int `json:"wait_seconds"`
}

// RackJobs is the answer to a claim; empty when there was nothing to do.
type RackJobs struct {
	Jobs []RackJob `json:"jobs"`
	// Revision is the region's at the claim. Before it switches a machine on, the rack waits until its snapshot is as new: else the
	// machine could boot faster than the news of what it is to boot.
	Revision int64 `json:"revision"`
}

// RackJob is one attempt at a job. Attempt is its fencing number: results of an attempt that is not the current one are refused.
type RackJob struct {
	ID           int64  `json:"id"`
	Kind         string `json:"kind"` // power, scan, images
	Attempt      int64  `json:"attempt"`
	LeaseSeconds int    `json:"lease_seconds"`
	// Power is set when Kind is power.
	Power *PowerOrder `json:"power,omitempty"`
	// Scan is set when Kind is scan.
	Scan *ScanOrder `json:"scan,omitempty"`
	// Images is set when Kind is images: bring into the cache all content that the snapshot names.
	Images *ImagesOrder `json:"images,omitempty"`
}

// JobImages is the kind of jobs by which a rack fetches images ahead of the machines that will ask for them.
const JobImages = "images"

// ImagesOrder says nothing more: what there is to fetch is in the snapshot.
type ImagesOrder struct{}

// ImagesResult is what came of it.
type ImagesResult struct {
	Fetched int    `json:"fetched"` // blobs that were not there before
	Error   string `json:"error,omitempty"`
}

// RackCache says what a rack holds of the images' content, each time all of it.
type RackCache struct {
	Contents []string `json:"contents"` // SHA-256 digests
	// Shared says that the rack reads the region's own store and so holds whatever that does.
	Shared bool `json:"shared,omitempty"`
}

// JobPower is the kind of jobs that a rack carries out with a power driver.
const JobPower = "power"

// JobScan is the kind of jobs by which a rack looks for neighbours.
const JobScan = "scan"

// ScanOrder names the networks to scan: IPv4, and the rack is attached to them.
type ScanOrder struct {
	CIDRs []string `json:"cidrs"`
}

// ScanResult is who was seen in them.
type ScanResult struct {
	Neighbours []NeighbourReport `json:"neighbours"`
	Error      string            `json:"error,omitempty"`
}

// NeighbourReport is somebody that a rack saw.
type NeighbourReport struct {
	IP        string `json:"ip"`
	MAC       string `json:"mac"`
	Interface string `json:"interface,omitempty"` // of the rack
}

// PowerOrder says what to do with which BMC. It holds the BMC's password, and travels only over the authenticated link.
type PowerOrder struct {
	SystemID   string            `json:"system_id"`
	Action     string            `json:"action"` // on, off, cycle, query
	Driver     string            `json:"driver"`
	Parameters map[string]string `json:"parameters"`
	// TimeoutSeconds bounds the whole action.
	TimeoutSeconds int `json:"timeout_seconds"`
}

// JobHeartbeat prolongs the lease of an attempt.
type JobHeartbeat struct {
	Attempt int64 `json:"attempt"`
}

// JobLease is the answer to a heartbeat.
type JobLease struct {
	LeaseSeconds int `json:"lease_seconds"`
}

// JobResult ends an attempt.
type JobResult struct {
	Attempt int64        `json:"attempt"`
	Power   *PowerResult `json:"power,omitempty"`
	Scan    *ScanResult  `json:"scan,omitempty"`
	// Images is the result of a job of the kind images.
	Images *ImagesResult `json:"images,omitempty"`
}

// PowerResult is what came of a power order. Error is empty when it succeeded, and holds no secret.
type PowerResult struct {
	State string `json:"state"` // on, off, unknown, error
	Error string `json:"error,omitempty"`
	// Final says that another attempt cannot help: wrong password, wrong parameters.
	Final bool `json:"final,omitempty"`
}

// RackReports is a batch of what the rack saw. Posting it twice changes nothing.
type RackReports struct {
	Leases []LeaseReport `json:"leases,omitempty"`
	Boots  []BootStep    `json:"boots,omitempty"`
}

// LeaseReport is a DHCP lease that was given, renewed or ended.
type LeaseReport struct {
	At       time.Time `json:"at"`
	IP       string    `json:"ip"`
	MAC      string    `json:"mac"`
	Hostname string    `json:"hostname,omitempty"`
	SubnetID int64     `json:"subnet_id,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
	Released bool      `json:"released,omitempty"`
}

// BootStep is one step of a machine's network boot.
type BootStep struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // dhcp-offer, dhcp-ack, loader, boot-config, kernel, initrd, root, image, agent, refused
	MAC      string    `json:"mac,omitempty"`
	SystemID string    `json:"system_id,omitempty"`
	Client   string    `json:"client,omitempty"`   // the machine's address
	Rack     string    `json:"rack,omitempty"`     // the rack's address that it talked to
	Protocol string    `json:"protocol,omitempty"` // dhcp, tftp, http
	Path     string    `json:"path,omitempty"`
	Method   string    `json:"method,omitempty"` // pxe, uefi, ipxe: only of boot-config
	Purpose  string    `json:"purpose,omitempty"`
	Arch     string    `json:"arch,omitempty"`
	VLANID   int64     `json:"vlan_id,omitempty"`
	Relayed  bool      `json:"relayed,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// RackError is the body of an error of the link.
type RackError struct {
	Error string `json:"error"`
}
