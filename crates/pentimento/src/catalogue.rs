//! The options that say what can be painted: `--weights`, `--catalogue`, and those of providers.

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::remote::{IdeogramArgs, Remote};
use crate::weights::WeightsArg;
use domain::catalogue::Catalogue;
use hub::installed::Shelf;
use hub::registry::Registry;
use pipelines::{Engines, Precision, Residency};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct CatalogueArgs {
    #[command(flatten)]
    pub(crate) weights: WeightsArg,
    /// A file with more apps, or others in the place of built-in ones; its form is that of crates/hub/data/catalogue.toml
    #[arg(long, value_name = "FILE", env = "PENTIMENTO_CATALOGUE")]
    catalogue: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: IdeogramArgs,
}

/// The apps, and the weights and the keys that lie here for them.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) catalogue: Catalogue,
    pub(crate) registry: Registry,
    pub(crate) shelf: Shelf,
    pub(crate) remote: Remote,
}

impl CatalogueArgs {
    pub(crate) fn apps(&self) -> Result<Catalogue, Failure> {
        match &self.catalogue {
            None => Ok(hub::catalogue::built_in()),
            Some(file) => hub::catalogue::with_file(file).map_err(|error| Failure::caused_by(&error)),
        }
    }

    pub(crate) fn offer(&self, data: &DataArg) -> Result<Offer, Failure> {
        let catalogue = self.apps()?;
        let registry = hub::registry::built_in();
        let remote = self.remote.open()?;
        let shelf = self.weights.shelf(data, &registry)?.with_remote(&remote.providers(), &registry);
        Ok(Offer { catalogue, registry, shelf, remote })
    }
}

impl Offer {
    /// What a server would paint with, if memory had no limit.
    pub(crate) fn engines(&self) -> Engines {
        Engines::new(self.shelf.clone(), self.registry.clone(), Residency::unlimited(Precision::Auto))
    }
}
