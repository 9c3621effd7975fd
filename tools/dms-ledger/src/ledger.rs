//! The open ledger.

use std::time::{Duration, Instant};

use dms_cli::{Context, Failure, Settings, random_id};
use dms_wire::{ErrorCode, Response};

use crate::owner::Owner;
use crate::place::Place;
use crate::schema;
use crate::servers;
use crate::sqlite::Sqlite;
use crate::store::{Store, StoreError};
use crate::takeover::settle_ended;

/// How long to wait, at most, for others that write to the ledger.
const PATIENCE: Duration = Duration::from_secs(20);

/// The open ledger.
pub(crate) struct Ledger {
    pub(crate) store: Box<dyn Store>,
    pub(crate) id: String,
    pub(crate) owner: Owner,
    /// When the operations of runs that have ended were last settled.
    pub(crate) settled: Option<Instant>,
}

impl Ledger {
    /// Opens it. One that is a file is made if it is not there.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Failure> {
        let (place, mut store, new_id) = connect(settings)?;
        let id = schema::open(&mut *store, &new_id).map_err(|why| failed(&place, &why))?;
        Ok(Ledger { store, id, owner: Owner::ourselves(settings)?, settled: None })
    }

    /// Makes it, or what is missing of it.
    pub(crate) fn init(settings: &Settings) -> Result<(), Failure> {
        let (place, mut store, new_id) = connect(settings)?;
        schema::init(&mut *store, &new_id).map_err(|why| failed(&place, &why))?;
        schema::open(&mut *store, &new_id).map_err(|why| failed(&place, &why)).map(|_| ())
    }

    /// Whether it is there, whole, and ours to write to.
    pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
        let (place, mut store, new_id) = connect(settings)?;
        let store = &mut *store;
        let id = schema::open(store, &new_id).map_err(|why| failed(&place, &why))?;
        let missing = schema::missing(store).map_err(|why| failed(&place, &why))?;
        if !missing.is_empty() {
            let text = format!("ledger {place} lacks {}: dms-ledger init", missing.join(", "));
            return Err(Failure::permanent(text));
        }
        schema::try_writing(store).map_err(|why| {
            let text = format!("unable to write to ledger {place}: {why}");
            match why {
                StoreError::Busy(_) => Failure::temporary(text),
                _ => Failure::permanent(text),
            }
        })?;
        log::info!("ledger {id} in {place}: everything is there");
        Ok(())
    }

    /// The ledger, with the operations of ended runs settled.
    pub(crate) fn open_settled(settings: &Settings) -> Result<Self, Failure> {
        let mut ledger = Ledger::open(settings)?;
        settle_ended(&mut *ledger.store, &ledger.owner)
            .context("unable to settle", "the ledger")?;
        ledger.settled = Some(Instant::now());
        Ok(ledger)
    }
}

/// The database, and an id for a ledger that is made in it.
fn connect(settings: &Settings) -> Result<(Place, Box<dyn Store>, String), Failure> {
    let place = Place::read(&settings.db_url)
        .map_err(|why| Failure::permanent(format!("DMS_DB_URL {why}")))?;
    let patience = settings.request_timeout.min(PATIENCE);
    let store: Box<dyn Store> = match &place {
        Place::Sqlite(path) => {
            Box::new(Sqlite::open(path, patience).map_err(|why| failed(&place, &why))?)
        }
        Place::Mysql(server) => {
            servers::open(server, patience).map_err(|why| failed(&place, &why))?
        }
    };
    let new_id = random_id().context("unable to make", "a random id")?;
    Ok((place, store, new_id))
}

fn failed(place: &Place, why: &StoreError) -> Failure {
    let text = format!("unable to open ledger {place}: {why}");
    match why {
        StoreError::Unusable(_) => Failure::permanent(text),
        _ => Failure::temporary(text),
    }
}

/// The ledger, opened when it can be: while it cannot, each line is answered `database`.
pub(crate) struct Opened<'a> {
    settings: &'a Settings,
    open: fn(&Settings) -> Result<Ledger, Failure>,
    ledger: Option<Ledger>,
}

impl<'a> Opened<'a> {
    /// Tries at once: settings that no time will mend end the process.
    pub(crate) fn new(
        settings: &'a Settings,
        open: fn(&Settings) -> Result<Ledger, Failure>,
    ) -> Result<Self, Failure> {
        let ledger = match open(settings) {
            Err(why) if why.is_temporary() => {
                log::error!("{why}");
                None
            }
            opened => Some(opened?),
        };
        Ok(Opened { settings, open, ledger })
    }

    /// The ledger, or the answer to give without it.
    pub(crate) fn get(&mut self) -> Result<&mut Ledger, Response> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => (self.open)(self.settings)
                .map_err(|why| Response::error(ErrorCode::Database, why.to_string()))?,
        };
        Ok(self.ledger.insert(ledger))
    }
}
