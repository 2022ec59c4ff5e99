package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderGroup(g storage.UserGroup) api.UserGroup {
	return api.UserGroup{ResourceURI: apiRoot + "groups/" + itoa(g.ID) + "/", ID: g.ID, Name: g.Name, Description: &g.Description}
}

func oneGroup(g storage.UserGroup, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderGroup(g))
}

func okText(err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "OK")
}

func noContent(err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// UserGroupsList lists all groups.
func (s *Server) UserGroupsList(ctx context.Context, _ api.UserGroupsListParams) (oapi.Response, error) {
	list, err := s.P.UserGroups(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderGroup))
}

// UserGroupsCreate makes a group.
func (s *Server) UserGroupsCreate(ctx context.Context, p api.UserGroupsCreateParams) (oapi.Response, error) {
	return oneGroup(s.P.CreateUserGroup(ctx, provisioner.Named{Name: &p.Name, Description: p.Description}))
}

// UserGroupRead answers a group.
func (s *Server) UserGroupRead(ctx context.Context, p api.UserGroupReadParams) (oapi.Response, error) {
	return oneGroup(s.P.UserGroup(ctx, p.ID))
}

// UserGroupUpdate changes a group's name and description.
func (s *Server) UserGroupUpdate(ctx context.Context, p api.UserGroupUpdateParams) (oapi.Response, error) {
	return oneGroup(s.P.UpdateUserGroup(ctx, p.ID, provisioner.Named{Name: p.Name, Description: p.Description}))
}

// UserGroupDelete removes a group.
func (s *Server) UserGroupDelete(ctx context.Context, p api.UserGroupDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteUserGroup(ctx, p.ID))
}

// UserGroupListMembers lists the users of a group.
func (s *Server) UserGroupListMembers(ctx context.Context, p api.UserGroupListMembersParams) (oapi.Response, error) {
	list, err := s.P.GroupMembers(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(u storage.User) api.GroupMember { return api.GroupMember{Username: u.Username, Email: u.Email} }))
}

// UserGroupAddMember puts a user into a group.
func (s *Server) UserGroupAddMember(ctx context.Context, p api.UserGroupAddMemberParams) (oapi.Response, error) {
	return okText(s.P.AddGroupMember(ctx, p.ID, p.Username))
}

// UserGroupRemoveMember takes a user out of a group.
func (s *Server) UserGroupRemoveMember(ctx context.Context, p api.UserGroupRemoveMemberParams) (oapi.Response, error) {
	return noContent(s.P.RemoveGroupMember(ctx, p.ID, p.Username))
}

// UserGroupListEntitlements lists what a group gives.
func (s *Server) UserGroupListEntitlements(ctx context.Context, p api.UserGroupListEntitlementsParams) (oapi.Response, error) {
	list, err := s.P.GroupEntitlements(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(e storage.GroupEntitlement) api.Entitlement {
		if e.PoolID != nil {
			return api.Entitlement{ResourceType: "pool", ResourceID: *e.PoolID, Entitlement: e.Entitlement}
		}
		return api.Entitlement{ResourceType: "maas", Entitlement: e.Entitlement}
	}))
}

// UserGroupAddEntitlement gives an entitlement to a group.
func (s *Server) UserGroupAddEntitlement(ctx context.Context, p api.UserGroupAddEntitlementParams) (oapi.Response, error) {
	return okText(s.P.AddGroupEntitlement(ctx, p.ID, provisioner.EntitlementInput{ResourceType: p.ResourceType, ResourceID: p.ResourceID, Entitlement: p.Entitlement}))
}

// UserGroupRemoveEntitlement takes an entitlement from a group.
func (s *Server) UserGroupRemoveEntitlement(ctx context.Context, p api.UserGroupRemoveEntitlementParams) (oapi.Response, error) {
	return noContent(s.P.RemoveGroupEntitlement(ctx, p.ID, provisioner.EntitlementInput{ResourceType: p.ResourceType, ResourceID: p.ResourceID, Entitlement: p.Entitlement}))
}
