package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// Mirror trees, and what was made up for machines: words that MAAS has not.

func renderInstallTree(t storage.InstallTree) api.IngotInstallTree {
	return api.IngotInstallTree{ID: t.ID, Name: t.Name, Architecture: t.Architecture, URL: t.URL, Repositories: listOf(t.Repositories), Packages: listOf(t.Packages),
		Timezone: t.Timezone, Language: t.Language, Keyboard: t.Keyboard, State: t.State, Error: t.Error, Created: api.T1(t.Created), Updated: api.T1(t.Updated)}
}

func oneInstallTree(t storage.InstallTree, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderInstallTree(t))
}

// IngotInstallTreesList lists the trees.
func (s *Server) IngotInstallTreesList(ctx context.Context, _ api.IngotInstallTreesListParams) (oapi.Response, error) {
	list, err := s.P.InstallTrees(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderInstallTree))
}

// IngotInstallTreesCreate adds a tree.
func (s *Server) IngotInstallTreesCreate(ctx context.Context, p api.IngotInstallTreesCreateParams) (oapi.Response, error) {
	t, err := s.P.CreateInstallTree(ctx, provisioner.TreeInput{Name: &p.Name, Architecture: p.Architecture, URL: &p.URL, Repositories: p.Repositories, Packages: p.Packages,
		Timezone: p.Timezone, Language: p.Language, Keyboard: p.Keyboard})
	return oneInstallTree(t, err)
}

// IngotInstallTreeRead answers a tree.
func (s *Server) IngotInstallTreeRead(ctx context.Context, p api.IngotInstallTreeReadParams) (oapi.Response, error) {
	t, err := s.P.InstallTree(ctx, p.ID)
	return oneInstallTree(t, err)
}

// IngotInstallTreeUpdate changes a tree.
func (s *Server) IngotInstallTreeUpdate(ctx context.Context, p api.IngotInstallTreeUpdateParams) (oapi.Response, error) {
	t, err := s.P.UpdateInstallTree(ctx, p.ID, provisioner.TreeInput{URL: p.URL, Repositories: p.Repositories, Packages: p.Packages, Timezone: p.Timezone, Language: p.Language, Keyboard: p.Keyboard})
	return oneInstallTree(t, err)
}

// IngotInstallTreeDelete removes a tree.
func (s *Server) IngotInstallTreeDelete(ctx context.Context, p api.IngotInstallTreeDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteInstallTree(ctx, p.ID))
}

// IngotMachinePasswordTake tells a Windows machine's owner its password, once.
func (s *Server) IngotMachinePasswordTake(ctx context.Context, p api.IngotMachinePasswordTakeParams) (oapi.Response, error) {
	password, err := s.P.TakeMachinePassword(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.IngotMachinePassword{Username: "Administrator", Password: password})
}
