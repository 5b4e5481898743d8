//! Tables of nftables: replaced whole, and read back in the words of `nft`.
//!
//! Spoken over netlink by the thread that is in the pod's namespace: no `nft` program is needed. A table with one of our
//! names is ours; no other is touched.

use std::fmt::Write as _;

use nlink::netlink::nftables::{BaseChain, Chain, Family, Rule, RuleSpec};
use nlink::{Connection, Nftables};

use crate::error::NetworkError;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
    pub(crate) chains: Vec<TableChain>,
}

/// A chain of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChain {
    pub(crate) name: &'static str,
    pub(crate) base: BaseChain,
    pub(crate) rules: Vec<RuleSpec>,
}

/// The kernel's tables.
pub(crate) struct Firewall(Connection<Nftables>);

impl Firewall {
    /// That of the calling thread's namespace.
    pub(crate) fn here() -> Result<Self, NetworkError> {
        let action = "open a netlink socket for nftables".to_owned();
        Connection::<Nftables>::new().map(Self).map_err(|source| NetworkError::Link { action, source })
    }

    /// Makes a table what it should be, at once: a packet meets the old rules or the new ones.
    pub(crate) async fn ensure(&self, table: &Table) -> Result<(), NetworkError> {
        let refused = |source| NetworkError::Rules { table: table.name.clone(), source };
        let found = self.read(table).await?;
        if found.as_deref() == Some(table.text().as_str()) {
            return Ok(());
        }
        let mut change = self.0.transaction();
        if found.is_some() {
            change = change.del_table(&table.name, table.family);
        }
        change = change.add_table(&table.name, table.family);
        for chain in &table.chains {
            let made = Chain::new(table.name.as_str(), chain.name).map_err(refused)?;
            change = change.add_chain(made.family(table.family).base(chain.base.clone()));
            for spec in &chain.rules {
                let rule = Rule::from_spec(&table.name, chain.name, spec.clone()).family(table.family);
                change = change.add_rule(rule);
            }
        }
        change.commit(&self.0).await.map_err(refused)
    }

    /// A table as the kernel has it, as [`Table::text`] writes it; none where there is none of its name.
    pub(crate) async fn read(&self, table: &Table) -> Result<Option<String>, NetworkError> {
        let refused = |source| NetworkError::Rules { table: table.name.clone(), source };
        let tables = self.0.list_tables_in(table.family).await.map_err(refused)?;
        if !tables.iter().any(|found| found.name == table.name) {
            return Ok(None);
        }
        let mut chains = self.0.list_chains_in(table.name.as_str(), table.family).await.map_err(refused)?;
        let rules = self.0.list_rules(&table.name, table.family).await.map_err(refused)?;
        chains.sort_by(|one, other| one.name.cmp(&other.name));
        let mut text = String::new();
        for chain in chains {
            let base = chain.kind().and_then(|kind| kind.base().cloned());
            let lines = rules.iter().filter(|rule| rule.chain == chain.name);
            let lines = lines.map(|rule| rule.nft_syntax_stateless()).collect();
            write_chain(&mut text, &chain.name, base.as_ref(), lines);
        }
        Ok(Some(text))
    }
}

impl Table {
    /// Its chains and rules, in one line.
    pub(crate) fn text(&self) -> String {
        let mut chains: Vec<&TableChain> = self.chains.iter().collect();
        chains.sort_by_key(|chain| chain.name);
        let mut text = String::new();
        for chain in chains {
            let lines = chain.rules.iter().map(|rule| rule.nft_syntax_stateless(self.family)).collect();
            write_chain(&mut text, chain.name, Some(&chain.base), lines);
        }
        text
    }
}

/// What has no words is `?`, which is never in a table of ours.
fn write_chain(text: &mut String, name: &str, base: Option<&BaseChain>, rules: Vec<Option<String>>) {
    let hook = base.map(|base| {
        let policy = base.default_policy();
        let (kind, hook, priority) = (base.chain_type(), base.hook(), base.priority().to_i32());
        format!("{kind:?} {hook:?} {priority} {policy:?}")
    });
    let rules: Vec<String> = rules.into_iter().map(|rule| rule.unwrap_or_else(|| "?".to_owned())).collect();
    let hook = hook.unwrap_or_else(|| "?".to_owned());
    // Writing to a String does not fail.
    let _ = write!(text, "{name} ({hook}) {{ {} }} ", rules.join("; "));
}
